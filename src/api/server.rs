//! Accepting connections: how many, how long a head may take, and how they end.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tower::ServiceExt;

/// How long a request's head may take, and its body.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);
const BODY_PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a request's head.
const HEAD_BYTES: usize = 64 << 10;
/// What is still read of a body that was answered before its end, how long, and how long a pause in it may be: a client
/// that finds its connection gone while it sends does not see the answer.
const LINGER_BYTES: usize = 64 << 20;
const LINGER_PATIENCE: Duration = Duration::from_secs(30);
const LINGER_PAUSE: Duration = Duration::from_secs(2);

/// The address that a request comes from.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Tells a connection from all others.
#[derive(Debug, Clone, Copy)]
pub struct Connection(pub u64);

/// Serves until `stop` says so, and returns when requests under way are answered.
pub async fn serve(listener: TcpListener, router: Router, connections: usize, mut stop: watch::Receiver<bool>) {
    let room = Arc::new(Semaphore::new(connections));
    let mut number = 0;
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &room) => accepted,
            () = stopped(&mut stop) => break,
        };
        let Some((stream, peer, permit)) = accepted else { continue };
        let (router, mut stop) = (router.clone(), stop.clone());
        number += 1;
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(Peer(peer));
                request.extensions_mut().insert(Connection(number));
                Box::pin(router.clone().oneshot(request))
            });
            let mut connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_PATIENCE)
                .max_buf_size(HEAD_BYTES)
                .serve_connection(TokioIo::new(stream), service);
            let ended = tokio::select! {
                ended = poll_fn(|context| connection.poll_without_shutdown(context)) => ended,
                () = stopped(&mut stop) => {
                    Pin::new(&mut connection).graceful_shutdown();
                    poll_fn(|context| connection.poll_without_shutdown(context)).await
                }
            };
            match ended {
                Ok(()) => tokio::select! {
                    () = linger(connection.into_parts().io.into_inner()) => {}
                    () = stopped(&mut stop) => {}
                },
                Err(error) => tracing::debug!(%peer, "connection: {error}"),
            }
            drop(permit);
        });
    }
    // Whoever comes now is turned away at once, not kept waiting for an answer that never comes.
    drop(listener);
    // Requests under way get theirs.
    drop(room.acquire_many(u32::try_from(connections).unwrap_or(u32::MAX)).await);
}

/// Ends a connection: nothing more is sent, and what comes is read and thrown away until the client has seen that.
async fn linger(mut stream: TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let rest = async {
        let (mut thrown, mut left) = (vec![0; 16 << 10], LINGER_BYTES);
        while let Ok(Ok(read)) = tokio::time::timeout(LINGER_PAUSE, stream.read(&mut thrown)).await {
            left = left.saturating_sub(read);
            if read == 0 || left == 0 {
                break;
            }
        }
    };
    // Who sends for longer loses the connection.
    drop(tokio::time::timeout(LINGER_PATIENCE, rest).await);
}

/// Returns when the process drains.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Who says so is there to the end.
    drop(stop.wait_for(|stop| *stop).await);
}

type Accepted = (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit);

/// The next connection, when there is room for it.
async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> Option<Accepted> {
    let permit = Arc::clone(room).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => {
            // Answers are small and wanted at once; a stream that cannot say so works all the same.
            stream.set_nodelay(true).unwrap_or_default();
            Some((stream, peer, permit))
        }
        Err(error) => {
            // Out of descriptors, most likely: trying at once again would spin.
            tracing::warn!("cannot accept a connection: {error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

/// A request's body, if it is small enough and comes in time.
///
/// # Errors
/// The answer to give.
pub async fn body(body: Body, limit: usize) -> Result<Bytes, Response<Body>> {
    match tokio::time::timeout(BODY_PATIENCE, axum::body::to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => {
            let too_large =
                std::error::Error::source(&error).is_some_and(|e| e.is::<http_body_util::LengthLimitError>());
            Err(match too_large {
                true => problem(StatusCode::PAYLOAD_TOO_LARGE, &format!("the body has more than {limit} bytes")),
                false => problem(StatusCode::BAD_REQUEST, "the body broke off"),
            })
        }
        Err(_) => Err(problem(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    }
}

/// An answer that says what is wrong: `{"error": TEXT}`.
pub fn problem(status: StatusCode, text: &str) -> Response<Body> {
    (status, axum::Json(serde_json::json!({ "error": text }))).into_response()
}

/// An answer that asks to be tried again in a second.
pub fn later(why: &str) -> Response<Body> {
    let mut answer = problem(StatusCode::SERVICE_UNAVAILABLE, why);
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

/// Headers as a record has them.
pub fn pairs(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect()
}

/// Whether a request to a listener on loopback names this machine: a page in somebody's browser that found out our
/// address names its own (DNS rebinding).
pub fn names_this_machine(host: Option<&str>) -> bool {
    let Some(host) = host else { return false };
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}
