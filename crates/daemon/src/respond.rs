//! Answers and errors, with the headers that every answer has.

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use sampan_base::{ErrorKind, Failure};
use sampan_wire::{FieldError, Json, object};

/// The body of every answer.
pub(crate) type Body = BoxBody<Bytes, std::io::Error>;
/// An answer, or the error that becomes one.
pub(crate) type Reply = Result<Response<Body>, ApiError>;

/// An error with its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(crate) fn unsupported(what: &str) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, format!("not supported: {what}"))
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        if self.status == StatusCode::NOT_MODIFIED {
            return empty(self.status);
        }
        json(self.status, &object! { "message": self.message })
    }
}

/// The status of each kind of failure.
fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorKind::Denied => StatusCode::FORBIDDEN,
        ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::NotModified => StatusCode::NOT_MODIFIED,
        ErrorKind::Cancelled | ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl<E: Failure> From<E> for ApiError {
    fn from(error: E) -> Self {
        Self::new(status(error.kind()), sampan_engine::chain(&error))
    }
}

/// A field of the wrong type is a bad request.
pub(crate) fn bad_field(error: FieldError) -> ApiError {
    ApiError::invalid(error.0)
}

/// A whole body.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// An answer of JSON. Clients compare the content type byte for byte.
pub(crate) fn json(status: StatusCode, document: &Json) -> Response<Body> {
    let mut response = Response::new(full(document.print_plain() + "\n"));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// A good answer of JSON.
pub(crate) fn ok(document: &Json) -> Reply {
    Ok(json(StatusCode::OK, document))
}

/// A good answer without content.
pub(crate) fn no_content() -> Reply {
    Ok(empty(StatusCode::NO_CONTENT))
}
