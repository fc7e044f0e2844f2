//! Reads what a refused request still sends. A server that answers before it has read the body, and then closes the connection,
//! makes many clients see a broken connection instead of the answer.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::BoxError;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header::EXPECT;
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;

/// The most bytes that are read and discarded after a handler has dropped the body. A longer body ends with its connection.
const DRAINED_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Answers after the body has arrived, at most [`DRAINED_MAX_BYTES`] of it. A client that waits for `100 Continue` has not begun
/// to send, and gets its answer at once.
pub(crate) async fn drain(request: Request, next: Next) -> Response {
    if request.headers().contains_key(EXPECT) {
        return next.run(request).await;
    }
    let (sender, mut receiver) = oneshot::channel();
    let request = request.map(|body| Body::new(ReturnedBody { body, sender: Some(sender) }));
    let response = next.run(request).await;
    if let Ok(body) = receiver.try_recv() {
        discard(body).await;
    }
    response
}

async fn discard(mut body: Body) {
    let mut remaining = DRAINED_MAX_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let Some(rest) = remaining.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
        remaining = rest;
    }
}

/// A body that goes to `sender` when the handler drops it unread.
struct ReturnedBody {
    body: Body,
    sender: Option<oneshot::Sender<Body>>,
}

impl HttpBody for ReturnedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.sender = None;
        }
        frame.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ReturnedBody {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take()
            && !self.body.is_end_stream()
        {
            let _ = sender.send(std::mem::take(&mut self.body));
        }
    }
}
