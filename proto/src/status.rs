//! Errors as gRPC statuses: the code's number and a topic's id travel beside the status.

use tonic::Code;

use crate::error::{ErrorCode, WireError};

/// gRPC metadata key for the number of an [`ErrorCode`], beside a status.
pub const ERROR_METADATA_KEY: &str = "ropewalk-error";
/// gRPC metadata key for [`WireError::topic_id`], beside a status.
const TOPIC_METADATA_KEY: &str = "ropewalk-topic-id";

/// Maximum bytes of a message in a status, which HTTP/2 headers carry. The message may quote a caller's
/// input, and headers past the peer's limit would break the connection.
const MAX_STATUS_MESSAGE_BYTES: usize = 1024;

impl From<WireError> for tonic::Status {
    fn from(error: WireError) -> tonic::Status {
        let mut message = error.message;
        if message.len() > MAX_STATUS_MESSAGE_BYTES {
            let whole = |at: &usize| message.is_char_boundary(*at);
            let end = (0..=MAX_STATUS_MESSAGE_BYTES).rev().find(whole);
            message.truncate(end.unwrap_or(0));
            message.push('…');
        }
        let mut status = tonic::Status::new(error.code.grpc(), message);
        status
            .metadata_mut()
            .insert(ERROR_METADATA_KEY, (error.code as u32).into());
        if error.topic_id != 0 {
            status
                .metadata_mut()
                .insert(TOPIC_METADATA_KEY, error.topic_id.into());
        }
        status
    }
}

impl From<&tonic::Status> for WireError {
    /// Reads the code beside the status. A status of the transport itself becomes the nearest row.
    fn from(status: &tonic::Status) -> WireError {
        let code = match (number(status, ERROR_METADATA_KEY), status.code()) {
            (Some(number), _) => ErrorCode::from_number(u32::try_from(number).unwrap_or(0)),
            (None, Code::DeadlineExceeded | Code::Cancelled) => ErrorCode::Timeout,
            (None, Code::Unavailable) => ErrorCode::LeadershipLost,
            (None, Code::Unimplemented) => ErrorCode::UnsupportedVersion,
            (None, Code::ResourceExhausted | Code::OutOfRange) => ErrorCode::TooLarge,
            (None, _) => ErrorCode::Internal,
        };
        WireError {
            topic_id: number(status, TOPIC_METADATA_KEY).unwrap_or(0),
            ..WireError::new(code, status.message())
        }
    }
}

fn number(status: &tonic::Status, key: &str) -> Option<u64> {
    status.metadata().get(key)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_code_survives_a_status_and_a_stream() {
        for &code in ErrorCode::ALL {
            let error = WireError {
                topic_id: code as u64 - 1,
                ..WireError::new(code, "why")
            };
            let status = tonic::Status::from(error.clone());
            assert_eq!(WireError::from(&status), error);
            assert_eq!(
                WireError::from(crate::v1::Error::from(error.clone())),
                error
            );
        }
    }

    #[test]
    fn no_error_looks_like_success_to_a_client() {
        for &code in ErrorCode::ALL {
            assert_ne!(code.grpc(), Code::Ok, "{code}");
            assert_ne!(code.kafka(), 0, "{code}");
        }
    }

    #[test]
    fn a_message_too_long_for_headers_is_cut_at_a_character() {
        let error = WireError::new(ErrorCode::UnknownTopic, "ü".repeat(100_000));
        let status = tonic::Status::from(error);
        assert_eq!(status.message(), format!("{}…", "ü".repeat(512)));
    }

    proptest! {
        #[test]
        fn an_error_survives_the_headers_it_travels_in(
            code in prop::sample::select(ErrorCode::ALL),
            message in ".{0,200}",
        ) {
            let error = WireError::new(code, message);
            let response = tonic::Status::from(error.clone()).into_http::<()>();
            let status = tonic::Status::from_header_map(response.headers()).unwrap();
            prop_assert_eq!(WireError::from(&status), error);
        }
    }
}
