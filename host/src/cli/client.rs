//! The HTTP client of the command line.
//!
//! Owns the address and the token of the host, and turns every failure into words. The token goes into a header and
//! nowhere else; requests never take a proxy from the environment, which would see it.

use std::time::Duration;

use ostler_protocol::ApiError;
use reqwest::{Method, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::discovery::Location;
use super::sse::{Frame, Parser};
use super::{CliError, discovery};
use crate::api::ApiToken;
use crate::config::env;

/// Time for a connection to be made.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Time for an answer that is not a stream. A stop takes a second, a diff of a large workspace more.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// Silence on a stream after which it counts as dead: three heartbeats.
const SILENCE: Duration = Duration::from_secs(45);

/// A host to ask.
pub struct Client {
    http: reqwest::Client,
    streams: reqwest::Client,
    url: Url,
    token: ApiToken,
    /// Where the token is from, if it is that of this machine's host.
    here: Option<Location>,
}

impl Client {
    /// The host at `url`, or the one that says that it runs on this machine.
    pub fn find(url: Option<String>) -> Result<Self, CliError> {
        let own = std::env::var(env::TOKEN).ok().filter(|text| !text.is_empty());
        let own = own.map(|text| ApiToken::parse(text.trim()).ok_or(CliError::WrongToken)).transpose()?;
        let found = if url.is_some() && own.is_some() { None } else { discovery::find()? };
        let url = match (&url, &found) {
            (Some(url), _) => parse_url(url)?,
            (None, Some(location)) => parse_url(&location.url)?,
            (None, None) => return Err(CliError::NotRunning { detail: String::new() }),
        };
        // The token of this machine's host is for that host, not for whatever address was given.
        let here = found.filter(|location| parse_url(&location.url).is_ok_and(|here| here == url));
        match (own, here) {
            (Some(token), _) => Self::new(url, token, None),
            (None, Some(location)) => Self::new(url, token_of(&location)?, Some(location)),
            (None, None) => Err(CliError::NoToken { url: url.to_string() }),
        }
    }

    /// The host at an address, with its token.
    #[cfg(test)]
    pub fn at(url: &str, token: ApiToken) -> Result<Self, CliError> {
        Self::new(parse_url(url)?, token, None)
    }

    fn new(url: Url, token: ApiToken, here: Option<Location>) -> Result<Self, CliError> {
        let build = |builder: reqwest::ClientBuilder| {
            let builder = builder.no_proxy().connect_timeout(CONNECT_TIME);
            builder.build().map_err(|source| CliError::Transport { operation: "prepare the HTTP client", source })
        };
        let http = build(crate::http::plain().timeout(ANSWER_TIME))?;
        let streams = build(crate::http::plain().read_timeout(SILENCE))?;
        Ok(Self { http, streams, url, token, here })
    }

    /// The token is for this machine's host, which may have ended since, and another user may have taken its address. To be called
    /// each time before the token is sent.
    pub fn still_the_host(&self) -> Result<(), CliError> {
        self.here.as_ref().map_or(Ok(()), |location| token_of(location).map(drop))
    }

    /// The address of the host.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The token, for git.
    pub fn token(&self) -> &ApiToken {
        &self.token
    }

    /// Reads. `path` holds the parts of the path below `/v1`, not yet escaped.
    pub async fn get<T: DeserializeOwned>(&self, operation: &'static str, path: &[&str]) -> Result<T, CliError> {
        self.answer(operation, self.request(&self.http, Method::GET, path)).await
    }

    /// Reads with a query.
    pub async fn query<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        path: &[&str],
        query: &str,
    ) -> Result<T, CliError> {
        let mut url = self.address(path);
        url.set_query(Some(query));
        let request = self.http.request(Method::GET, url).bearer_auth(self.token.expose());
        self.answer(operation, request).await
    }

    /// Makes or finds something.
    pub async fn put<T: DeserializeOwned>(&self, operation: &'static str, path: &[&str]) -> Result<T, CliError> {
        self.answer(operation, self.request(&self.http, Method::PUT, path)).await
    }

    /// Asks for something to happen.
    pub async fn post<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T, CliError> {
        self.answer(operation, self.request(&self.http, Method::POST, path).json(body)).await
    }

    /// [`Self::post`] of something that must happen once: with a key of its own, so that it can be repeated after a
    /// connection that broke before the answer came.
    pub async fn post_once<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T, CliError> {
        let key = format!("cli-{}", ulid::Ulid::generate().to_string().to_ascii_lowercase());
        let ask = || {
            let request = self.request(&self.http, Method::POST, path).header("idempotency-key", &key).json(body);
            self.answer(operation, request)
        };
        match ask().await {
            Err(CliError::Transport { .. }) => ask().await,
            answered => answered,
        }
    }

    /// Ends something.
    pub async fn delete<T: DeserializeOwned>(&self, operation: &'static str, path: &[&str]) -> Result<T, CliError> {
        self.answer(operation, self.request(&self.http, Method::DELETE, path)).await
    }

    /// Opens a stream of events after the event `after`.
    pub async fn stream(&self, session: &str, after: u64) -> Result<FrameStream, CliError> {
        let operation = "watch the session";
        self.still_the_host()?;
        let request = self
            .request(&self.streams, Method::GET, &["sessions", session, "events"])
            .header(reqwest::header::ACCEPT, "text/event-stream")
            .header("last-event-id", after);
        let response = request.send().await.map_err(|error| self.failed(operation, error))?;
        let response = self.checked(operation, response).await?;
        Ok(FrameStream { response, parser: Parser::default() })
    }

    fn request(&self, http: &reqwest::Client, method: Method, path: &[&str]) -> reqwest::RequestBuilder {
        http.request(method, self.address(path)).bearer_auth(self.token.expose())
    }

    /// Where a WebSocket is to be opened; `path` as for [`Self::get`].
    pub fn socket_address(&self, path: &[&str]) -> Url {
        let mut url = self.address(path);
        // Only a change between http and something else is refused.
        let _ = url.set_scheme("ws");
        url
    }

    fn address(&self, path: &[&str]) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().push("v1").extend(path);
        }
        url
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        request: reqwest::RequestBuilder,
    ) -> Result<T, CliError> {
        self.still_the_host()?;
        let response = request.send().await.map_err(|error| self.failed(operation, error))?;
        let response = self.checked(operation, response).await?;
        let bytes = response.bytes().await.map_err(|error| self.failed(operation, error))?;
        serde_json::from_slice(&bytes).map_err(|error| CliError::Answer { operation, why: error.to_string() })
    }

    async fn checked(&self, operation: &'static str, response: Response) -> Result<Response, CliError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let bytes = response.bytes().await.map_err(|error| self.failed(operation, error))?;
        Err(refusal(operation, status, &bytes))
    }

    fn failed(&self, operation: &'static str, error: reqwest::Error) -> CliError {
        if error.is_connect() {
            return CliError::NotRunning { detail: format!(" at {}", self.url) };
        }
        CliError::Transport { operation, source: error.without_url() }
    }
}

fn token_of(location: &Location) -> Result<ApiToken, CliError> {
    discovery::token(location).map_err(|error| CliError::of_token(location, error))
}

/// What an answer says that is no success.
pub fn refusal(operation: &'static str, status: StatusCode, body: &[u8]) -> CliError {
    match serde_json::from_slice::<ApiError>(body) {
        Ok(error) => CliError::Api(error),
        Err(_) => CliError::Answer { operation, why: format!("status {status}; is this an ostler host?") },
    }
}

fn parse_url(text: &str) -> Result<Url, CliError> {
    let wrong = |why: &str| CliError::WrongUrl { url: text.to_owned(), why: why.to_owned() };
    let url: Url = text.parse().map_err(|error| wrong(&format!("{error}")))?;
    match url.scheme() {
        "http" => {}
        "https" => return Err(wrong("this ostler speaks plain HTTP only")),
        _ => return Err(wrong("it must begin with `http://`")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("it must not hold a user or a password"));
    }
    if !url.has_host() || url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it must be a host and a port and nothing else"));
    }
    Ok(url)
}

/// A stream of events under way.
pub struct FrameStream {
    response: Response,
    parser: Parser,
}

impl FrameStream {
    /// The next frame; `None` where the host ended the stream.
    pub async fn next(&mut self) -> Result<Option<Frame>, CliError> {
        let operation = "watch the session";
        loop {
            if let Some(frame) = self.parser.next_frame() {
                return Ok(Some(frame));
            }
            let chunk = self.response.chunk().await;
            // What broke a stream is of no use to anyone; that it broke is.
            let chunk = chunk.map_err(|_| CliError::StreamBroken)?;
            let Some(chunk) = chunk else { return Ok(None) };
            self.parser.push(&chunk).map_err(|error| CliError::Answer { operation, why: error.to_string() })?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_address_is_taken() {
        assert!(parse_url("http://127.0.0.1:7878").is_ok());
        assert!(parse_url("http://[::1]:7878/").is_ok());
        for text in ["", "localhost:7878", "https://x", "ftp://x", "http://a:b@x", "http://x/v1", "http://x/?token=1"] {
            assert!(matches!(parse_url(text), Err(CliError::WrongUrl { .. })), "{text}");
        }
    }

    #[test]
    fn parts_of_a_path_stay_parts() {
        let client = Client::at("http://127.0.0.1:1", ApiToken::parse(&"0".repeat(64)).unwrap()).unwrap();
        let address = client.address(&["repositories", "../../x?y#z"]);
        assert_eq!(address.as_str(), "http://127.0.0.1:1/v1/repositories/..%2F..%2Fx%3Fy%23z");
        let client = Client::at("http://[::1]:1", ApiToken::parse(&"0".repeat(64)).unwrap()).unwrap();
        assert_eq!(client.socket_address(&["a", "b/c"]).as_str(), "ws://[::1]:1/v1/a/b%2Fc");
    }
}
