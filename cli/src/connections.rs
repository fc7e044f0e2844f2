//! Accepts the connections of the local server and serves them within limits of time and number, so that no client can hold the
//! server up by sending nothing.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::response::Response;
use axum::{BoxError, Router};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::io::InspectReader;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tower_http::timeout::TimeoutBody;

/// How long a connection may send nothing, and how many there may be.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// From the first byte of a request to the end of its headers.
    pub head: Duration,
    /// Between two pieces of a body.
    pub body: Duration,
    /// Without a request.
    pub idle: Duration,
    /// Open connections. Beyond, the one that has been without a request for longest is closed.
    pub connections: usize,
}

/// How long the connections may take to end after the last request.
const CLOSING: Duration = Duration::from_secs(1);
/// The pause after the system refused a connection, for example because the process has too many files open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A server that accepts connections until it is closed.
pub struct ConnectionServer {
    shared: Arc<Shared>,
    connections: TaskTracker,
    /// Ends the accepting, and each connection once its request has ended.
    closing: CancellationToken,
}

struct Shared {
    service: Router,
    limits: ConnectionLimits,
    /// Open connections, the oldest first.
    open: Mutex<BTreeMap<u64, Arc<Connection>>>,
    next: AtomicU64,
    /// Told when a request ends.
    ended: Notify,
    /// Ends the bodies that have not arrived.
    stopping: CancellationToken,
}

impl ConnectionServer {
    /// Starts to accept the listener's connections.
    pub fn start(listener: TcpListener, service: Router, limits: ConnectionLimits) -> Self {
        let shared = Arc::new(Shared {
            service,
            limits,
            open: Mutex::default(),
            next: AtomicU64::default(),
            ended: Notify::new(),
            stopping: CancellationToken::new(),
        });
        let server = Self { shared, connections: TaskTracker::new(), closing: CancellationToken::new() };
        server.connections.spawn(accept(
            listener,
            Arc::clone(&server.shared),
            server.connections.clone(),
            server.closing.clone(),
        ));
        server
    }

    /// Ends the requests whose bodies have not arrived.
    pub fn stop_reading(&self) {
        self.shared.stopping.cancel();
    }

    /// How many requests are being answered.
    pub fn in_flight(&self) -> usize {
        self.shared.open().values().map(|connection| connection.activity().requests).sum()
    }

    /// Waits until no request is being answered, then closes the port and all connections.
    pub async fn close(&self) {
        loop {
            let mut ended = pin!(self.shared.ended.notified());
            ended.as_mut().enable();
            if self.in_flight() == 0 {
                break;
            }
            ended.await;
        }
        self.closing.cancel();
        self.connections.close();
        self.connections.wait().await;
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, connections: TaskTracker, closing: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closing.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                if let Some((id, connection)) = shared.admit() {
                    connections.spawn(serve(stream, Arc::clone(&shared), id, connection, closing.clone()));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for a connection, and counts it. `None` if all others have requests.
    fn admit(&self) -> Option<(u64, Arc<Connection>)> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection::default());
        let mut open = self.open();
        if open.len() >= self.limits.connections {
            let without_request = open.iter().filter(|(_, other)| other.activity().requests == 0);
            let longest = without_request.min_by_key(|(_, other)| other.activity().since).map(|(id, _)| *id);
            let limit = self.limits.connections;
            let Some(idle) = longest.and_then(|id| open.remove(&id)) else {
                tracing::warn!(limit, "connection limit reached, all with requests; a new connection is closed");
                return None;
            };
            tracing::warn!(limit, "connection limit reached; an idle connection is closed");
            idle.evicted.notify_one();
        }
        open.insert(id, Arc::clone(&connection));
        Some((id, connection))
    }
}

/// What a connection is doing.
#[derive(Default)]
struct Connection {
    activity: Mutex<Activity>,
    /// Told when the first byte of a request comes, which ends sooner than an idle connection.
    head_began: Notify,
    evicted: Notify,
}

struct Activity {
    requests: usize,
    /// Since when there has been no request.
    since: Instant,
    /// When the first byte of the next request came.
    head_since: Option<Instant>,
}

impl Default for Activity {
    fn default() -> Self {
        Self { requests: 0, since: Instant::now(), head_since: None }
    }
}

impl Connection {
    fn activity(&self) -> MutexGuard<'_, Activity> {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that bytes came.
    fn received(&self) {
        let mut activity = self.activity();
        if activity.requests == 0 && activity.head_since.is_none() {
            activity.head_since = Some(Instant::now());
            self.head_began.notify_one();
        }
    }

    /// When the connection has sent nothing for too long. A request in flight has its own time-outs.
    fn deadline(&self, limits: &ConnectionLimits) -> Option<Instant> {
        let activity = self.activity();
        let since_head = activity.head_since.map(|since| since + limits.head);
        (activity.requests == 0).then(|| since_head.unwrap_or(activity.since + limits.idle))
    }
}

/// A request in flight.
struct InFlight {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
}

impl InFlight {
    fn begin(shared: &Arc<Shared>, connection: &Arc<Connection>) -> Self {
        let mut activity = connection.activity();
        activity.requests += 1;
        activity.head_since = None;
        Self { shared: Arc::clone(shared), connection: Arc::clone(connection) }
    }

    /// Answers the request, which is then no longer in flight.
    async fn respond(self, request: hyper::Request<Incoming>) -> Response {
        let request: Request = request.map(|body| {
            let body = Box::pin(TimeoutBody::new(self.shared.limits.body, body));
            Body::new(RequestBody { body, stopping: Box::pin(self.shared.stopping.clone().cancelled_owned()) })
        });
        let Ok(response) = self.shared.service.clone().oneshot(request).await;
        response
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut activity = self.connection.activity();
        activity.requests = activity.requests.saturating_sub(1);
        activity.since = Instant::now();
        self.shared.ended.notify_waiters();
    }
}

/// The body of a request. A server that stops does not wait for its rest.
struct RequestBody {
    body: Pin<Box<TimeoutBody<Incoming>>>,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = self.body.as_mut().poll_frame(context);
        if frame.is_pending() && self.stopping.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err("the server is stopping".into())));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

async fn serve(
    stream: TcpStream,
    shared: Arc<Shared>,
    id: u64,
    connection: Arc<Connection>,
    closing: CancellationToken,
) {
    let answer = {
        let (shared, connection) = (Arc::clone(&shared), Arc::clone(&connection));
        service_fn(move |request: hyper::Request<Incoming>| {
            let in_flight = InFlight::begin(&shared, &connection);
            async move { Ok::<_, Infallible>(in_flight.respond(request).await) }
        })
    };
    let received = {
        let connection = Arc::clone(&connection);
        move |_: &[u8]| connection.received()
    };
    let io = TokioIo::new(InspectReader::new(stream, received));
    let builder = Builder::new(TokioExecutor::new());
    let mut served = pin!(builder.serve_connection(io, answer));
    let mut closes_at = None;
    loop {
        let deadline = closes_at.or_else(|| connection.deadline(&shared.limits));
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            break;
        }
        tokio::select! {
            _ = served.as_mut() => break,
            () = sleep_until(deadline.unwrap_or_else(|| Instant::now() + shared.limits.head)) => {}
            () = connection.head_began.notified() => {}
            () = connection.evicted.notified() => break,
            () = closing.cancelled(), if closes_at.is_none() => {
                served.as_mut().graceful_shutdown();
                closes_at = Some(Instant::now() + CLOSING);
            }
        }
    }
    shared.open().remove(&id);
}
