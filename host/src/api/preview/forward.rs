//! Passing a request on to a port of a sandbox, and its answer back; as a tunnel after a switch of protocols.
//!
//! Each request has a connection of its own: a sandbox gains nothing from holding one open. Bodies are streamed both ways and
//! never held; who does not read holds up only itself.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use ostler_protocol::ErrorCode;
use tokio::net::TcpStream;

use super::{Admitted, Preview, cookie_name, headers, page, tunnel};
use crate::api::ApiState;
use crate::telemetry::chain;

/// Time for the head of an answer: development servers build before they answer.
const ANSWER_TIME: Duration = Duration::from_secs(120);

/// Passes a request on that was let in.
pub(super) async fn forward(
    state: &ApiState,
    id: &str,
    preview: &Preview,
    admitted: Admitted,
    mut request: Request,
) -> Response {
    let stream = match state.processes.connect(preview.session, preview.port).await {
        Ok(stream) => stream,
        Err(error) if error.public.code == ErrorCode::SandboxFailed => {
            let words = format!("This preview has nothing to show: {}.", error.public.message);
            return page(StatusCode::BAD_GATEWAY, &words);
        }
        Err(error) => {
            return page(StatusCode::SERVICE_UNAVAILABLE, &format!("The sandbox cannot be reached: {error}."));
        }
    };
    let path = match &admitted {
        Admitted::ByKey { path, .. } => path.clone(),
        Admitted::ByCookie => request.uri().path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
    };
    let Ok(target) = path.parse::<Uri>() else {
        return page(StatusCode::BAD_REQUEST, "The address is none that can be passed on.");
    };
    *request.uri_mut() = target;
    let upgrade = headers::upgrade(request.headers()).is_some().then(|| hyper::upgrade::on(&mut request));
    headers::request(request.headers_mut(), preview.port, &cookie_name(id), |text| state.token.matches(text));
    match ask(state, stream, request, upgrade, preview).await {
        Ok(mut response) => {
            headers::response(response.headers_mut(), preview.port);
            if let Admitted::ByKey { cookie, .. } = &admitted
                && let Ok(cookie) = HeaderValue::try_from(cookie)
            {
                response.headers_mut().append(header::SET_COOKIE, cookie);
            }
            response
        }
        Err(why) => page(StatusCode::BAD_GATEWAY, &format!("Port {} of the sandbox {why}.", preview.port)),
    }
}

/// Sends a request over a connection; the error says what the other side did.
async fn ask(
    state: &ApiState,
    stream: TcpStream,
    request: Request,
    upgrade: Option<OnUpgrade>,
    preview: &Preview,
) -> Result<Response, String> {
    let broke = |error: hyper::Error| format!("did not answer properly: {}", chain(&error));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broke)?;
    // Ends with the answer's body, or with who reads it.
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection of a preview ended early");
        }
    });
    let answered = tokio::time::timeout(ANSWER_TIME, sender.send_request(request)).await;
    let mut response = match answered {
        Ok(answered) => answered.map_err(broke)?,
        Err(_) => return Err(format!("did not answer within {} s", ANSWER_TIME.as_secs())),
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client) = upgrade else { return Err("switched protocols though nobody asked".to_owned()) };
        let places = [&preview.tunnels, &state.previews.tunnels].map(|places| Arc::clone(places).try_acquire_owned());
        if places.iter().any(Result::is_err) {
            return Err("could not be connected: previews have too many open WebSockets".to_owned());
        }
        let (server, stopping) = (hyper::upgrade::on(&mut response), state.stopping.clone());
        let ended = state.previews.until_ended(preview);
        tokio::spawn(async move {
            let _places = places;
            tokio::select! {
                () = stopping.cancelled() => {}
                () = ended => {}
                () = connect(client, server) => {}
            }
        });
    }
    Ok(response.map(Body::new))
}

async fn connect(client: OnUpgrade, server: OnUpgrade) {
    let switched = tokio::time::timeout(ANSWER_TIME, async { tokio::try_join!(client, server) }).await;
    let Ok(Ok((client, server))) = switched else { return };
    tunnel::join(TokioIo::new(client), TokioIo::new(server), tunnel::PATIENCE).await;
}
