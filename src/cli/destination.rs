//! The HTTP destination of the demo: wants user name and password, keeps count of the orders it got.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::post;
use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

/// `myUsername:myPassword`, as RFC 7617 writes it.
const CREDENTIALS: &str = "Basic bXlVc2VybmFtZTpteVBhc3N3b3Jk";

#[derive(Default)]
struct Got {
    orders: HashSet<String>,
    requests: u64,
    refused: u64,
}

/// A running destination.
pub struct Destination {
    /// Where orders are posted to.
    pub url: String,
    got: Arc<Mutex<Got>>,
}

impl Destination {
    /// Serves on a free port until the process ends.
    pub fn serve() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let url = format!("http://{}/orders", listener.local_addr()?);
        let got = Arc::<Mutex<Got>>::default();
        let router = Router::new().route("/orders", post(take)).with_state(Arc::clone(&got));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("sluice-destination".into()).spawn(move || {
            runtime.block_on(async move {
                let served = match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => axum::serve(listener, router).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = served {
                    tracing::error!("the demo's destination has ended: {error}");
                }
            });
        })?;
        Ok(Self { url, got })
    }

    /// Prints what it got; whether that is every EU order, once, and `others` at most beside them.
    pub fn summary(&self, eu_orders: u64, others: u64) -> bool {
        let got = self.got.lock().unwrap_or_else(PoisonError::into_inner);
        let distinct = got.orders.len() as u64;
        let good = (eu_orders..=eu_orders + others).contains(&distinct) && got.refused == 0;
        println!(
            "HTTP destination: {distinct} EU orders with the right user name and password, {} repeated, {} refused{}",
            got.requests - distinct,
            got.refused,
            if good { "" } else { "   DIFFERS" }
        );
        good
    }
}

async fn take(State(got): State<Arc<Mutex<Got>>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let mut got = got.lock().unwrap_or_else(PoisonError::into_inner);
    if headers.get(header::AUTHORIZATION).is_none_or(|value| value != CREDENTIALS) {
        got.refused += 1;
        return StatusCode::UNAUTHORIZED;
    }
    let Ok(event) = serde_json::from_slice::<serde_json::Value>(&body) else { return StatusCode::BAD_REQUEST };
    got.requests += 1;
    got.orders.insert(event["id"].to_string());
    StatusCode::NO_CONTENT
}

/// The address if it is free, else a free one of the same host.
pub fn free_address(wanted: SocketAddr) -> std::io::Result<SocketAddr> {
    let taken = TcpListener::bind(wanted).or_else(|_| TcpListener::bind((wanted.ip(), 0)))?;
    taken.local_addr()
}
