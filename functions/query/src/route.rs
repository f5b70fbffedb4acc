//! Routing: a request's method, path and query string become a [`Call`], or a problem that names
//! what is wrong.

use http::Method;
use lambda::problem::Problem;
use playback::contract::is_id;
use playback::session::SessionId;
use store::dynamodb::{MAX_PAGE, Request as Page};

/// Sessions per page if the request does not say.
const DEFAULT_PAGE: usize = 20;

/// A call of the member's API.
#[derive(Debug)]
pub(crate) enum Call {
    History(Page),
    ContinueWatching { limit: usize },
    Bookmark { title_id: String },
    SetHidden { session_id: SessionId, hidden: bool },
    Erase,
}

/// Reads the call and its profile id. `parameter` returns a query parameter's value.
pub(crate) fn route<'a>(
    method: &Method,
    path: &'a str,
    parameter: impl Fn(&str) -> Option<String>,
) -> Result<(&'a str, Call), Problem> {
    let nothing = || Problem::not_found(format!("nothing is served at {path}"));
    let rest = path.strip_prefix("/v1/profiles/").ok_or_else(nothing)?;
    let segments: Vec<&str> = rest.trim_end_matches('/').split('/').collect();
    let (profile_id, call) = match (method, segments.as_slice()) {
        (&Method::GET, [profile, "history"]) => (profile, Call::History(read_page(parameter)?)),
        (&Method::GET, [profile, "continue-watching"]) => {
            (profile, Call::ContinueWatching { limit: read_limit(&parameter)? })
        }
        (&Method::GET, [profile, "titles", title, "bookmark"]) => {
            check_id("title_id", title)?;
            (profile, Call::Bookmark { title_id: (*title).to_owned() })
        }
        (&Method::PUT | &Method::DELETE, [profile, "history", session, "hidden"]) => {
            let session_id = session.parse().map_err(|error| {
                Problem::bad_request("session_id_malformed", format!("`session_id` {error}")).field("session_id")
            })?;
            (profile, Call::SetHidden { session_id, hidden: method == Method::PUT })
        }
        (&Method::DELETE, [profile, "history"]) => (profile, Call::Erase),
        (_, [_, "history"]) => return Err(Problem::method_not_allowed("GET, DELETE")),
        (_, [_, "continue-watching"] | [_, "titles", _, "bookmark"]) => return Err(Problem::method_not_allowed("GET")),
        (_, [_, "history", _, "hidden"]) => return Err(Problem::method_not_allowed("PUT, DELETE")),
        _ => return Err(nothing()),
    };
    check_id("profile_id", profile_id)?;
    Ok((profile_id, call))
}

fn check_id(field: &str, text: &str) -> Result<(), Problem> {
    if is_id(text) {
        return Ok(());
    }
    let detail = format!("`{field}` in the path must be 1 to 64 letters, digits or _ - . :");
    Err(Problem::bad_request("id_malformed", detail).field(field))
}

fn read_page(parameter: impl Fn(&str) -> Option<String>) -> Result<Page, Problem> {
    let after = parameter("page_token").filter(|token| !token.is_empty()).map(|token| token.parse()).transpose();
    let after = after.map_err(|error| {
        Problem::bad_request("page_token_malformed", format!("`page_token` {error}")).field("page_token")
    })?;
    let include_hidden = match parameter("include_hidden").as_deref() {
        None | Some("" | "false") => false,
        Some("true") => true,
        Some(_) => {
            let detail = "`include_hidden` must be true or false";
            return Err(Problem::bad_request("include_hidden_malformed", detail).field("include_hidden"));
        }
    };
    Ok(Page { limit: read_limit(&parameter)?, after, include_hidden })
}

fn read_limit(parameter: &impl Fn(&str) -> Option<String>) -> Result<usize, Problem> {
    let Some(text) = parameter("limit").filter(|text| !text.is_empty()) else { return Ok(DEFAULT_PAGE) };
    text.parse().ok().filter(|limit| (1..=MAX_PAGE).contains(limit)).ok_or_else(|| {
        Problem::bad_request("limit_out_of_range", format!("`limit` must be between 1 and {MAX_PAGE}")).field("limit")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem_of(method: Method, path: &str, query: &[(&str, &str)]) -> (u16, Option<String>) {
        let parameter = |name: &str| query.iter().find(|(of, _)| *of == name).map(|(_, value)| (*value).to_owned());
        match route(&method, path, parameter) {
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
        assert_eq!(get(history, &[("page_token", "x")]), named("page_token"));
        assert_eq!(get(history, &[("include_hidden", "yes")]), named("include_hidden"));
        assert_eq!(get("/v1/profiles/a%23b/history", &[]), named("profile_id"));
        assert_eq!(get("/v1/profiles/p1/titles/~/bookmark", &[]), named("title_id"));
        assert_eq!(problem_of(Method::PUT, "/v1/profiles/p1/history/x/hidden", &[]), named("session_id"));
        assert_eq!(problem_of(Method::POST, history, &[]), (405, None));
        assert_eq!(get("/v1/profiles/p1", &[]), (404, None));
        assert_eq!(get("/", &[]), (404, None));
    }
}
