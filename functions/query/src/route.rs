//! The routes of the member's API, and what each reads from a request: a [`Call`], or a problem that
//! names what is wrong.
//!
//! A new route is a line of [`ROUTES`], a [`Call`], and a route in `template.yaml`; a test compares
//! the two lists.

use lambda::problem::Problem;
use lambda::route::{Parameters, Table};
use lambda_http::Request;
use playback::contract::{ID_RULE, is_id};
use playback::session::SessionId;
use store::dynamodb::{MAX_PAGE, MAX_TITLES, Request as Page};

/// Sessions per page if the request does not say.
const DEFAULT_PAGE: usize = 20;

/// A call of the member's API.
#[derive(Debug)]
pub(crate) enum Call {
    History(Page),
    ContinueWatching {
        limit: usize,
    },
    Titles(Vec<String>),
    Title {
        title_id: String,
    },
    SetWatched {
        title_id: String,
        watched: bool,
    },
    SetHidden {
        session_id: SessionId,
        hidden: bool,
    },
    /// Forgets a title or a session, or everything.
    Erase {
        title_id: Option<String>,
        session_id: Option<SessionId>,
    },
}

/// Reads a call from what its request says.
type Read = fn(&Parameters<'_>) -> Result<Call, Problem>;

/// Every route, with what reads its call.
pub(crate) const ROUTES: Table<Read> = Table(&[
    ("GET /v1/profiles/{profile_id}/history", |of| Ok(Call::History(read_page(of)?))),
    ("DELETE /v1/profiles/{profile_id}/history", |_| Ok(Call::Erase { title_id: None, session_id: None })),
    ("DELETE /v1/profiles/{profile_id}/history/{session_id}", |of| {
        Ok(Call::Erase { title_id: None, session_id: Some(read_session_id(of)?) })
    }),
    ("PUT /v1/profiles/{profile_id}/history/{session_id}/hidden", |of| {
        Ok(Call::SetHidden { session_id: read_session_id(of)?, hidden: true })
    }),
    ("DELETE /v1/profiles/{profile_id}/history/{session_id}/hidden", |of| {
        Ok(Call::SetHidden { session_id: read_session_id(of)?, hidden: false })
    }),
    ("GET /v1/profiles/{profile_id}/continue-watching", |of| Ok(Call::ContinueWatching { limit: read_limit(of)? })),
    ("GET /v1/profiles/{profile_id}/titles", |of| Ok(Call::Titles(read_ids(of)?))),
    ("GET /v1/profiles/{profile_id}/titles/{title_id}", |of| Ok(Call::Title { title_id: read_id(of, "title_id")? })),
    ("GET /v1/profiles/{profile_id}/titles/{title_id}/bookmark", |of| {
        Ok(Call::Title { title_id: read_id(of, "title_id")? })
    }),
    ("DELETE /v1/profiles/{profile_id}/titles/{title_id}", |of| {
        Ok(Call::Erase { title_id: Some(read_id(of, "title_id")?), session_id: None })
    }),
    ("PUT /v1/profiles/{profile_id}/titles/{title_id}/watched", |of| {
        Ok(Call::SetWatched { title_id: read_id(of, "title_id")?, watched: true })
    }),
    ("DELETE /v1/profiles/{profile_id}/titles/{title_id}/watched", |of| {
        Ok(Call::SetWatched { title_id: read_id(of, "title_id")?, watched: false })
    }),
]);

/// Reads the profile id and the call of a request.
pub(crate) fn route(request: &Request) -> Result<(String, Call), Problem> {
    let (read, parameters) = ROUTES.find(request)?;
    Ok((read_id(&parameters, "profile_id")?, read(&parameters)?))
}

fn read_id(of: &Parameters<'_>, field: &str) -> Result<String, Problem> {
    let id = of.path(field);
    if is_id(id) {
        return Ok(id.to_owned());
    }
    Err(Problem::bad_request("id_malformed", format!("`{field}` in the path {ID_RULE}")).field(field))
}

fn read_ids(of: &Parameters<'_>) -> Result<Vec<String>, Problem> {
    let ids: Vec<String> = of.query("ids").unwrap_or_default().split(',').map(str::to_owned).collect();
    if ids.len() > MAX_TITLES || ids.iter().any(|id| !is_id(id)) {
        let detail = format!("`ids` must be 1 to {MAX_TITLES} title ids, separated by commas; each {ID_RULE}");
        return Err(Problem::bad_request("ids_malformed", detail).field("ids"));
    }
    Ok(ids)
}

fn read_session_id(of: &Parameters<'_>) -> Result<SessionId, Problem> {
    of.path("session_id").parse().map_err(|error| {
        Problem::bad_request("session_id_malformed", format!("`session_id` {error}")).field("session_id")
    })
}

fn read_page(of: &Parameters<'_>) -> Result<Page, Problem> {
    // A reader that follows pages has an empty one at first.
    let after = of.query("page_token").filter(|token| !token.is_empty()).map(str::parse).transpose();
    let after = after.map_err(|error| {
        Problem::bad_request("page_token_malformed", format!("`page_token` {error}")).field("page_token")
    })?;
    let include_hidden = match of.query("include_hidden") {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => {
            let detail = "`include_hidden` must be true or false";
            return Err(Problem::bad_request("include_hidden_malformed", detail).field("include_hidden"));
        }
    };
    Ok(Page { limit: read_limit(of)?, after, include_hidden })
}

fn read_limit(of: &Parameters<'_>) -> Result<usize, Problem> {
    let Some(text) = of.query("limit") else { return Ok(DEFAULT_PAGE) };
    // `parse` takes a sign, too, which the contract's integer does not have.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|limit| digits && (1..=MAX_PAGE).contains(limit)).ok_or_else(|| {
        Problem::bad_request("limit_out_of_range", format!("`limit` must be between 1 and {MAX_PAGE}")).field("limit")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;
    use lambda_http::{Body, RequestExt};
    use std::collections::HashMap;

    fn problem_of(method: Method, path: &str, query: &[(&str, &str)]) -> (u16, Option<String>) {
        let query: HashMap<String, Vec<String>> =
            query.iter().map(|(name, value)| ((*name).to_owned(), vec![(*value).to_owned()])).collect();
        let request = http::Request::builder().method(method).body(Body::Empty).unwrap();
        let request = request.with_raw_http_path(path).with_query_string_parameters(query);
        match route(&request) {
            Ok(_) => (200, None),
            Err(problem) => (problem.status.as_u16(), problem.field),
        }
    }

    #[test]
    fn every_call_of_the_contract_is_served() {
        let session = "use1-01M3250V3TW3KG5DD5CEVSMJCC";
        for (method, path) in [
            (Method::GET, "/v1/profiles/p1/history".to_owned()),
            (Method::GET, "/v1/profiles/p1/continue-watching".to_owned()),
            (Method::GET, "/v1/profiles/p1/titles/t1/bookmark".to_owned()),
            (Method::GET, "/v1/profiles/p1/titles/t1".to_owned()),
            (Method::DELETE, "/v1/profiles/p1/titles/t1".to_owned()),
            (Method::PUT, "/v1/profiles/p1/titles/crid:%2F%2Fa.example%2Fb/watched".to_owned()),
            (Method::DELETE, "/v1/profiles/p1/titles/t1/watched".to_owned()),
            (Method::DELETE, format!("/v1/profiles/p1/history/{session}")),
            (Method::PUT, format!("/v1/profiles/p1/history/{session}/hidden")),
            (Method::DELETE, format!("/v1/profiles/p1/history/{session}/hidden")),
            (Method::DELETE, "/v1/profiles/p1/history".to_owned()),
        ] {
            assert_eq!(problem_of(method, &path, &[]), (200, None), "{path}");
        }
    }

    #[test]
    fn invalid_requests_name_the_field() {
        let named = |field: &str| (400, Some(field.to_owned()));
        let get = |path: &str, query: &[(&str, &str)]| problem_of(Method::GET, path, query);
        let history = "/v1/profiles/p1/history";
        assert_eq!(get(history, &[("limit", "0")]), named("limit"));
        assert_eq!(get(history, &[("limit", "101")]), named("limit"));
        assert_eq!(get(history, &[("limit", "ten")]), named("limit"));
        assert_eq!(get(history, &[("limit", "")]), named("limit"));
        assert_eq!(get(history, &[("limit", "+5")]), named("limit"));
        assert_eq!(get(history, &[("page_token", "x")]), named("page_token"));
        assert_eq!(get(history, &[("page_token", "")]), (200, None));
        assert_eq!(get(history, &[("include_hidden", "yes")]), named("include_hidden"));
        assert_eq!(get(history, &[("include_hidden", "")]), named("include_hidden"));
        assert_eq!(get("/v1/profiles/a%23b/history", &[]), named("profile_id"));
        assert_eq!(get("/v1/profiles//history", &[]), named("profile_id"));
        assert_eq!(get("/v1/profiles/p1/titles/~/bookmark", &[]), named("title_id"));
        assert_eq!(problem_of(Method::PUT, "/v1/profiles/p1/history/x/hidden", &[]), named("session_id"));
        let titles = "/v1/profiles/p1/titles";
        let many = vec!["t"; 101].join(",");
        for ids in ["", "a,,b", "a,~b", "a b", &many] {
            assert_eq!(get(titles, &[("ids", ids)]), named("ids"));
        }
        assert_eq!(get(titles, &[]), named("ids"));
        assert_eq!(get(titles, &[("ids", "a,crid://b/c")]), (200, None));
        assert_eq!(problem_of(Method::POST, history, &[]), (405, None));
        assert_eq!(get("/v1/profiles/p1", &[]), (404, None));
        assert_eq!(get("/", &[]), (404, None));
    }
}
