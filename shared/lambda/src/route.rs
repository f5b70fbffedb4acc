//! Routing inside a function: which of its routes a request is for, and the values in its path.
//!
//! API Gateway has chosen a route already and says which (`routeKey`). That counts. The path does
//! not: behind a custom domain it begins with the mapping's key, and on a named stage with the
//! stage. Only without a route key that we know (none, `$default`, a request made by hand) is the
//! path compared with the routes.
//!
//! **Escapes.** An HTTP API decodes the path before it chooses a route and before it invokes a
//! function: `%2F` becomes a separator, and what follows `%3F` is lost. It leaves only `%25`
//! alone. So a client sends such an id encoded twice, and each value is decoded twice here, after
//! the path was split. Once or twice encoded, through the gateway or without it, the id is the
//! same. The price: an id that contains an escape itself, such as a literal `%41`, must be sent
//! encoded twice.

use std::borrow::Cow;

use lambda_http::request::RequestContext;
use lambda_http::{Request, RequestExt};
use percent_encoding::percent_decode_str;

use crate::problem::Problem;

/// A function's routes: each key, as the template has it (`GET /v1/things/{id}`), with what serves
/// it.
#[derive(Debug, Clone, Copy)]
pub struct Table<T: 'static>(pub &'static [(&'static str, T)]);

/// The values that a request gives to a route.
#[derive(Debug)]
pub struct Parameters<'a> {
    request: &'a Request,
    path: Vec<(&'static str, String)>,
}

impl Parameters<'_> {
    /// The value of `{name}` in the route's path, decoded. Empty if the route has no such name.
    pub fn path(&self, name: &str) -> &str {
        self.path.iter().find(|(of, _)| *of == name).map_or("", |(_, value)| value)
    }

    /// The value of a parameter in the query string, decoded; the first one if there are several.
    /// One without a value, as in `?limit=`, is given and empty.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.request.query_string_parameters_ref()?.first(name)
    }
}

impl<T> Table<T> {
    /// The keys of all routes.
    pub fn keys(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|(key, _)| *key)
    }

    /// The route of a request.
    ///
    /// # Errors
    /// 404 when no route has this path, 405 when one has, but for other methods.
    pub fn find<'a>(&self, request: &'a Request) -> Result<(&'static T, Parameters<'a>), Problem> {
        let by_key = chosen(request).and_then(|chosen| self.0.iter().find(|(key, _)| *key == chosen));
        if let Some((key, target)) = by_key
            && let Some(path) = given(path_of(key), request).or_else(|| at_the_end(path_of(key), request))
        {
            return Ok((target, Parameters { request, path }));
        }
        let path = without_stage(request);
        let segments: Vec<&str> = path.trim_end_matches('/').split('/').collect();
        let mut allowed = Vec::new();
        for (key, target) in self.0 {
            let (method, route) = key.split_once(' ').unwrap_or(("", key));
            match values(route, &segments) {
                Some(path) if request.method().as_str() == method => {
                    return Ok((target, Parameters { request, path }));
                }
                Some(_) => allowed.push(method),
                None => {}
            }
        }
        if allowed.is_empty() {
            return Err(Problem::not_found(format!("nothing is served at {path}")));
        }
        Err(Problem::method_not_allowed(allowed.join(", ")))
    }
}

/// The key of the route that API Gateway chose.
fn chosen(request: &Request) -> Option<&str> {
    match request.request_context_ref()? {
        RequestContext::ApiGatewayV2(context) => context.route_key.as_deref(),
        _ => None,
    }
}

fn path_of(key: &'static str) -> &'static str {
    key.split_once(' ').map_or(key, |(_, path)| path)
}

/// The path without a named stage in front.
fn without_stage(request: &Request) -> &str {
    let path = request.raw_http_path();
    let Some(RequestContext::ApiGatewayV2(context)) = request.request_context_ref() else { return path };
    let stage = context.stage.as_deref().unwrap_or_default();
    let rest = path.strip_prefix('/').and_then(|path| path.strip_prefix(stage));
    rest.filter(|rest| !stage.is_empty() && rest.starts_with('/')).unwrap_or(path)
}

/// The values of the route's names, as API Gateway gives them; `None` unless it gives them all.
fn given(route: &'static str, request: &Request) -> Option<Vec<(&'static str, String)>> {
    let parameters = request.path_parameters_ref();
    let value = |name| Some((name, decode(parameters?.first(name)?)));
    route.split('/').filter_map(name).map(value).collect()
}

/// The values that the end of the path gives: what comes before, API Gateway has taken off.
fn at_the_end(route: &'static str, request: &Request) -> Option<Vec<(&'static str, String)>> {
    // The route begins with a slash, so its first segment is empty, and the path's may be a key.
    let (_, route) = route.split_once('/')?;
    let segments: Vec<&str> = request.raw_http_path().trim_end_matches('/').split('/').collect();
    let begin = segments.len().checked_sub(route.split('/').count())?;
    values(route, &segments[begin..])
}

/// The values of the route's names in a path of these segments; `None` if it is not the route's.
fn values(route: &'static str, segments: &[&str]) -> Option<Vec<(&'static str, String)>> {
    let route: Vec<&'static str> = route.split('/').collect();
    if route.len() != segments.len() {
        return None;
    }
    let mut values = Vec::new();
    for (expected, segment) in route.into_iter().zip(segments) {
        match name(expected) {
            Some(name) => values.push((name, decode(segment))),
            None if expected == *segment => {}
            None => return None,
        }
    }
    Some(values)
}

/// The name in `{name}`.
fn name(segment: &'static str) -> Option<&'static str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

/// A value without its escapes, of one encoding or two. Bytes that are no UTF-8 become U+FFFD,
/// which no id may contain.
fn decode(value: &str) -> String {
    let once: Cow<'_, str> = percent_decode_str(value).decode_utf8_lossy();
    percent_decode_str(&once).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lambda_http::request::LambdaRequest;
    use serde_json::{Value, json};

    const THINGS: Table<&str> = Table(&[
        ("GET /v1/things/{thing}", "read"),
        ("PUT /v1/things/{thing}", "write"),
        ("GET /v1/things/{thing}/parts/{part}", "part"),
        ("POST /v1/things", "make"),
    ]);

    /// A request as API Gateway describes it to a function.
    fn request(method: &str, route_key: &str, stage: &str, path: &str, parameters: Value) -> Request {
        let event = json!({
            "version": "2.0",
            "routeKey": route_key,
            "rawPath": path,
            "rawQueryString": "limit=5&empty=&name=a%2Fb",
            "headers": {"host": "api.example"},
            "pathParameters": parameters,
            "requestContext": {"routeKey": route_key, "stage": stage, "http": {"method": method, "path": path}},
            "isBase64Encoded": false,
        });
        serde_json::from_value::<LambdaRequest>(event).unwrap().into()
    }

    /// What serves the request, with the values of its path; else the status and `Allow`.
    fn found(request: &Request) -> Result<(&'static str, String, String), (u16, Option<String>)> {
        match THINGS.find(request) {
            Ok((target, of)) => Ok((target, of.path("thing").to_owned(), of.path("part").to_owned())),
            Err(problem) => Err((problem.status.as_u16(), problem.allow)),
        }
    }

    fn is(
        target: &'static str,
        thing: &str,
        part: &str,
    ) -> Result<(&'static str, String, String), (u16, Option<String>)> {
        Ok((target, thing.to_owned(), part.to_owned()))
    }

    #[test]
    fn route_key_counts_whatever_comes_before_the_path() {
        for (stage, prefix) in [("$default", ""), ("$default", "/playhead"), ("prod", "/prod"), ("prod", "/a/b")] {
            let key = "GET /v1/things/{thing}/parts/{part}";
            let path = format!("{prefix}/v1/things/t1/parts/p1");
            let given = json!({"thing": "t1", "part": "p1"});
            assert_eq!(found(&request("GET", key, stage, &path, given)), is("part", "t1", "p1"), "{path}");
            let not_given = request("GET", key, stage, &format!("{path}/"), Value::Null);
            assert_eq!(found(&not_given), is("part", "t1", "p1"), "{path}");
            let made = request("POST", "POST /v1/things", stage, &format!("{prefix}/v1/things"), Value::Null);
            assert_eq!(found(&made), is("make", "", ""), "{path}");
        }
    }

    #[test]
    fn path_counts_without_a_known_route_key() {
        for key in ["$default", "ANY /{proxy+}", "GET /v2/things"] {
            let found = |method, path| found(&request(method, key, "prod", path, Value::Null));
            assert_eq!(found("GET", "/v1/things/t1"), is("read", "t1", ""), "{key}");
            assert_eq!(found("PUT", "/prod/v1/things/t1/"), is("write", "t1", ""), "{key}");
            assert_eq!(found("DELETE", "/v1/things/t1"), Err((405, Some("GET, PUT".into()))), "{key}");
            assert_eq!(found("GET", "/v1/things"), Err((405, Some("POST".into()))), "{key}");
            for path in ["/", "", "/v1", "/v1/things/t1/parts", "/production/v1/things/t1", "/V1/things/t1"] {
                assert_eq!(found("GET", path), Err((404, None)), "{key} {path}");
            }
        }
    }

    #[test]
    fn ids_arrive_whole_encoded_once_or_twice() {
        let key = "GET /v1/things/{thing}/parts/{part}";
        for (sent, id) in [
            ("10.5240%2F7791-8534", "10.5240/7791-8534"),
            ("10.5240%252F7791-8534", "10.5240/7791-8534"),
            ("urn:eidr:10.5240", "urn:eidr:10.5240"),
            ("urn%3Aeidr", "urn:eidr"),
            ("a%253Fb%2523c", "a?b#c"),
            ("100%25", "100%"),
            ("100%2525", "100%"),
            ("a%252541", "a%41"),
            ("a+b=", "a+b="),
            ("a b", "a b"),
            ("%FF", "\u{fffd}"),
            ("%", "%"),
        ] {
            let path = format!("/v1/things/{sent}/parts/{sent}");
            assert_eq!(found(&request("GET", key, "$default", &path, Value::Null)), is("part", id, id), "{sent}");
            assert_eq!(
                found(&request("GET", "$default", "$default", &path, Value::Null)),
                is("part", id, id),
                "{sent}"
            );
            let given = json!({"thing": sent, "part": sent});
            assert_eq!(found(&request("GET", key, "$default", "/", given)), is("part", id, id), "{sent}");
        }
    }

    #[test]
    fn query_parameters_are_decoded_and_empty_ones_given() {
        let request = request("GET", "GET /v1/things/{thing}", "$default", "/v1/things/t1", json!({"thing": "t1"}));
        let (_, of) = THINGS.find(&request).unwrap();
        assert_eq!((of.query("limit"), of.query("name")), (Some("5"), Some("a/b")));
        assert_eq!((of.query("empty"), of.query("other"), of.path("other")), (Some(""), None, ""));
    }

    #[test]
    fn keys_are_those_of_the_table() {
        assert_eq!(THINGS.keys().count(), 4);
        assert_eq!(THINGS.keys().next(), Some("GET /v1/things/{thing}"));
    }
}
