//! Counts the answers of the client service: those to unary calls, and those that refuse a stream. A stream
//! counts the answers within it itself.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use ropewalk_proto::error::ErrorCode;
use ropewalk_proto::error::WireError;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tower::Service;

use crate::metrics::{Metrics, Rpc};

/// A service that counts its answers.
#[derive(Debug, Clone)]
pub struct Counted<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S> Counted<S> {
    pub(super) fn new(inner: S, metrics: Arc<Metrics>) -> Counted<S> {
        Counted { inner, metrics }
    }
}

impl<S: NamedService> NamedService for Counted<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let rpc = Rpc::of_path(request.uri().path());
        let metrics = self.metrics.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            if let Some(rpc) = rpc {
                let error = error(&response);
                if error.is_some() || !rpc.is_stream() {
                    metrics.requests.answered(rpc, error);
                }
            }
            Ok(response)
        })
    }
}

/// Returns the error of an answer. A refusal has its status in the headers and no body; a body is an answer.
fn error(response: &Response<Body>) -> Option<ErrorCode> {
    let status = Status::from_header_map(response.headers())?;
    (status.code() != tonic::Code::Ok).then(|| WireError::from(&status).code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_from_an_answer_by_its_headers() {
        let refused = Status::from(WireError::new(ErrorCode::DiskFull, "no room"));
        assert_eq!(error(&refused.into_http()), Some(ErrorCode::DiskFull));
        assert_eq!(error(&Response::new(Body::default())), None);
    }
}
