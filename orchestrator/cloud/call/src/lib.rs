//! What every call to AWS has in common: how it fails, how long it may take and that it is counted.
//!
//! A crate of its own so that the slowly compiled EC2 crate and the others share one error type.

#![forbid(unsafe_code)]

mod ledger;

pub use ledger::Ledger;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_smithy_types::timeout::TimeoutConfig;
use std::error::Error;
use std::fmt;
use std::time::Duration;
use tde2hsm_protocol::{Code, limited, throttled};

/// Whether a call that failed may have had its effect all the same (`A§11.4`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It never left: nothing can have happened.
    NotSent,
    /// It may have been carried out. Ask before it is sent again (`A§1.5`).
    Ambiguous,
    /// AWS refused it: nothing happened.
    Refused,
}

/// Which call it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    pub service: &'static str,
    pub operation: &'static str,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.service, self.operation)
    }
}

/// A call to AWS that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{call}` {}: {message}{}", self.did(), self.request())]
pub struct CloudError {
    pub call: Call,
    pub effect: Effect,
    /// Ours.
    pub code: Code,
    /// AWS's own.
    pub aws_code: Option<String>,
    pub message: String,
    pub request_id: Option<String>,
}

impl CloudError {
    /// A failure that this program found in an answer of AWS.
    pub fn found(call: Call, code: Code, message: impl Into<String>) -> CloudError {
        CloudError { call, effect: Effect::Refused, code, aws_code: None, message: message.into(), request_id: None }
    }

    fn did(&self) -> String {
        match (self.effect, &self.aws_code) {
            (Effect::NotSent, _) => "was not sent".to_owned(),
            (Effect::Ambiguous, None) => "got no answer".to_owned(),
            (Effect::Ambiguous, Some(code)) => format!("failed with {code}"),
            (Effect::Refused, Some(code)) => format!("was refused with {code}"),
            (Effect::Refused, None) => "gave no usable answer".to_owned(),
        }
    }

    fn request(&self) -> String {
        self.request_id.as_ref().map(|id| format!(" (request {id})")).unwrap_or_default()
    }

    /// AWS's own code is one of these.
    pub fn is(&self, codes: &[&str]) -> bool {
        self.aws_code.as_deref().is_some_and(|code| codes.contains(&code))
    }
}

/// Sorts an SDK error. Anything that is not surely "not sent" or "refused" is ambiguous.
pub fn sort<E>(call: Call, error: SdkError<E, HttpResponse>) -> CloudError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    // Every operation has an error type of its own; one generic body would be compiled for each of them.
    let sorted = match &error {
        SdkError::ConstructionFailure(_) => Sorted { effect: Effect::NotSent, aws_code: None, request_id: None },
        SdkError::ServiceError(service) => {
            let status = service.raw().status().as_u16();
            let meta = service.err().meta();
            let refused = status < 500 || meta.code().is_some_and(limited);
            let effect = if refused { Effect::Refused } else { Effect::Ambiguous };
            let request_id = meta.extra("aws_request_id").map(str::to_owned);
            Sorted { effect, aws_code: meta.code().map(str::to_owned), request_id }
        }
        _ => Sorted { effect: Effect::Ambiguous, aws_code: None, request_id: None },
    };
    let message = match &error {
        SdkError::ServiceError(service) => service.err().meta().message().map(str::to_owned),
        _ => None,
    };
    finish(call, sorted, message, &error)
}

struct Sorted {
    effect: Effect,
    aws_code: Option<String>,
    request_id: Option<String>,
}

fn finish(call: Call, mut sorted: Sorted, message: Option<String>, error: &(dyn Error + 'static)) -> CloudError {
    let mut cause = Some(error);
    let mut no_credentials = false;
    let mut chain: Vec<String> = Vec::new();
    while let Some(this) = cause {
        no_credentials |= this.is::<CredentialsError>();
        let text = this.to_string();
        if !chain.iter().any(|before| before.contains(&text)) {
            chain.push(text);
        }
        cause = this.source();
    }
    let code = if no_credentials {
        // Signing comes before sending.
        sorted.effect = Effect::NotSent;
        Code::AWS_CREDENTIALS
    } else {
        our_code(sorted.effect, sorted.aws_code.as_deref())
    };
    let message = message.unwrap_or_else(|| chain.join(": "));
    // Where credentials were looked for is a list, one line a place, and is of use as a whole only.
    let most = if no_credentials { 2_000 } else { 500 };
    let message = message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect();
    CloudError { call, effect: sorted.effect, code, aws_code: sorted.aws_code, message, request_id: sorted.request_id }
}

fn our_code(effect: Effect, aws_code: Option<&str>) -> Code {
    let Some(aws) = aws_code else {
        return match effect {
            Effect::Refused => Code::AWS_INVALID,
            Effect::NotSent | Effect::Ambiguous => Code::AWS_UNREACHABLE,
        };
    };
    let has = |parts: &[&str]| parts.iter().any(|part| aws.contains(part));
    if has(&["ExpiredToken", "UnrecognizedClient", "InvalidClientTokenId", "InvalidAccessKeyId", "Signature", "AuthFailure"]) {
        Code::AWS_CREDENTIALS
    } else if has(&["AccessDenied", "UnauthorizedOperation", "NotAuthorized", "Forbidden"]) {
        Code::AWS_DENIED
    } else if throttled(aws) {
        Code::AWS_THROTTLED
    } else if effect == Effect::Ambiguous {
        Code::AWS_FAILED
    } else if has(&["NotFound", "NoSuch", "DoesNotExist"]) || aws == "InvalidDocument" {
        Code::AWS_NOT_FOUND
    } else {
        Code::AWS_INVALID
    }
}

/// How long a call may take. The SDK sets none of these but the first by itself: a hung call would hang for ever
/// (`A§11.4`).
pub fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(5))
        .operation_attempt_timeout(Duration::from_secs(30))
        .operation_timeout(Duration::from_secs(90))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_smithy_runtime_api::client::result::ConnectorError;
    use aws_smithy_runtime_api::http::StatusCode;
    use aws_smithy_types::body::SdkBody;
    use aws_smithy_types::error::ErrorMetadata;

    #[derive(Debug, thiserror::Error)]
    #[error("modelled")]
    struct Modelled(ErrorMetadata);
    impl ProvideErrorMetadata for Modelled {
        fn meta(&self) -> &ErrorMetadata {
            &self.0
        }
    }

    const CALL: Call = Call { service: "ssm", operation: "SendCommand" };

    fn service(status: u16, code: &str) -> CloudError {
        let meta = ErrorMetadata::builder().code(code).message("Rate exceeded").custom("aws_request_id", "r-1").build();
        let raw = HttpResponse::new(StatusCode::try_from(status).unwrap(), SdkBody::empty());
        sort(CALL, SdkError::service_error(Modelled(meta), raw))
    }

    #[test]
    fn only_a_client_error_or_a_limit_means_refused() {
        for (status, aws, effect, code) in [
            (400, "ThrottlingException", Effect::Refused, Code::AWS_THROTTLED),
            (400, "AccessDeniedException", Effect::Refused, Code::AWS_DENIED),
            (400, "ExpiredTokenException", Effect::Refused, Code::AWS_CREDENTIALS),
            (400, "InvalidInstanceId", Effect::Refused, Code::AWS_INVALID),
            (400, "CloudHsmResourceNotFoundException", Effect::Refused, Code::AWS_NOT_FOUND),
            (500, "InternalServerError", Effect::Ambiguous, Code::AWS_FAILED),
            (503, "ServiceUnavailable", Effect::Ambiguous, Code::AWS_FAILED),
            (503, "RequestLimitExceeded", Effect::Refused, Code::AWS_THROTTLED),
            (503, "ThrottlingException", Effect::Refused, Code::AWS_THROTTLED),
            (503, "SlowDown", Effect::Refused, Code::AWS_THROTTLED),
            (503, "ResourceLimitExceeded", Effect::Refused, Code::AWS_INVALID),
        ] {
            let error = service(status, aws);
            assert_eq!((error.effect, error.code), (effect, code), "{status} {aws}");
        }
    }

    #[test]
    fn what_got_no_answer_is_ambiguous_and_what_was_never_built_is_not_sent() {
        let gone = ConnectorError::io("connection reset".into());
        let lost = sort(CALL, SdkError::<Modelled, HttpResponse>::dispatch_failure(gone));
        assert_eq!((lost.effect, lost.code), (Effect::Ambiguous, Code::AWS_UNREACHABLE));
        let slow = sort(CALL, SdkError::<Modelled, HttpResponse>::timeout_error("30 s"));
        assert_eq!(slow.effect, Effect::Ambiguous);
        let unbuilt = sort(CALL, SdkError::<Modelled, HttpResponse>::construction_failure("no body"));
        assert_eq!(unbuilt.effect, Effect::NotSent);
    }

    #[test]
    fn missing_credentials_are_named_as_such() {
        let cause = ConnectorError::other(CredentialsError::not_loaded("no providers in chain").into(), None);
        let error = sort(CALL, SdkError::<Modelled, HttpResponse>::dispatch_failure(cause));
        assert_eq!((error.effect, error.code), (Effect::NotSent, Code::AWS_CREDENTIALS));
    }

    #[test]
    fn a_message_names_call_code_and_request() {
        let text = service(400, "ThrottlingException").to_string();
        assert_eq!(text, "`ssm:SendCommand` was refused with ThrottlingException: Rate exceeded (request r-1)");
    }
}
