//! What can go wrong with a call, as methods. Each fault counts down, so that a test ends in a sane world.

use crate::{ApiError, Service};
use std::collections::BTreeMap;

/// What becomes of a reply on its way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Delivered,
    /// The request was carried out, and the connection dies before the client hears of it (A§1.5).
    Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallFault {
    /// `ThrottlingException` or the service's own form of it; nothing is carried out.
    Throttle,
    /// HTTP 500; nothing is carried out.
    ServerError,
    /// The request is carried out, its reply is not delivered.
    LoseReply,
    /// The connection dies before anything is carried out.
    LoseRequest,
    /// The caller's rights are gone.
    Deny,
}

#[derive(Debug, Clone)]
struct Armed {
    fault: CallFault,
    service: Service,
    /// `*` for every operation.
    operation: String,
    left: u32,
}

/// The faults armed on calls and deliveries.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    armed: Vec<Armed>,
    pub(crate) deliver_twice: u32,
    pub(crate) deliver_late: Option<(u32, i64)>,
    pub(crate) lose_terminal_reply: u32,
    snapshots_fail: u32,
    copies_fail: u32,
    backup_copies_fail: u32,
    copies_late: (u32, i64),
    events_lost: u32,
    events_twice: u32,
    events_late: (u32, i64),
    struck: BTreeMap<String, u32>,
}

/// What becomes of an event on its way: nothing, once or twice, each so many milliseconds later (A§2.1).
pub(crate) type Deliveries = Vec<i64>;

impl Faults {
    /// Arms `fault` on the next `times` calls of `operation` (`*` for any) of `service`.
    pub fn arm(&mut self, fault: CallFault, service: Service, operation: &str, times: u32) {
        self.armed.push(Armed { fault, service, operation: operation.to_owned(), left: times });
    }

    /// The next `times` deliveries of a command reach the agent twice (H31).
    pub fn deliver_twice(&mut self, times: u32) {
        self.deliver_twice = times;
    }

    /// The next `times` deliveries reach the agent `ms` later than they should, even after their deadline (H31).
    pub fn deliver_late(&mut self, times: u32, ms: i64) {
        self.deliver_late = Some((times, ms));
    }

    /// The next `times` terminal replies of agents get lost: the work is done, the service says Delivery Timed Out
    /// when the total time-out has passed (A§1.3).
    pub fn lose_terminal_reply(&mut self, times: u32) {
        self.lose_terminal_reply = times;
    }

    /// The next `times` CreateSnapshot or CreateSnapshots calls end in `error`, all snapshots of a call together (A§3.1).
    pub fn fail_snapshots(&mut self, times: u32) {
        self.snapshots_fail = times;
    }

    /// The next `times` CopySnapshot calls are accepted and end in `error`.
    pub fn fail_copies(&mut self, times: u32) {
        self.copies_fail = times;
    }

    /// The next `times` CopyBackupToRegion calls are accepted and end as DELETED (A§4.4).
    pub fn fail_backup_copies(&mut self, times: u32) {
        self.backup_copies_fail = times;
    }

    /// The next `times` copies, of snapshots and backups alike, take `ms` longer.
    pub fn delay_copies(&mut self, times: u32, ms: i64) {
        self.copies_late = (times, ms);
    }

    /// The next `times` events never arrive.
    pub fn lose_events(&mut self, times: u32) {
        self.events_lost = times;
    }

    /// The next `times` events arrive twice.
    pub fn repeat_events(&mut self, times: u32) {
        self.events_twice = times;
    }

    /// The next `times` events arrive `ms` later, so after others that happened later.
    pub fn delay_events(&mut self, times: u32, ms: i64) {
        self.events_late = (times, ms);
    }

    /// How often each fault struck: copies and events by what became of them, calls as `Throttle s3:GetObject`.
    pub fn struck(&self) -> &BTreeMap<String, u32> {
        &self.struck
    }

    fn note(&mut self, what: &str, struck: bool) -> bool {
        if struck {
            *self.struck.entry(what.to_owned()).or_default() += 1;
        }
        struck
    }

    pub(crate) fn fail_next_snapshots(&mut self) -> bool {
        let any = take_one(&mut self.snapshots_fail);
        self.note("snapshots fail", any)
    }

    pub(crate) fn fail_next_copies(&mut self) -> bool {
        let any = take_one(&mut self.copies_fail);
        self.note("copies fail", any)
    }

    pub(crate) fn fail_next_backup_copies(&mut self) -> bool {
        let any = take_one(&mut self.backup_copies_fail);
        self.note("backup copies fail", any)
    }

    pub(crate) fn copy_delay(&mut self) -> i64 {
        let any = take_one(&mut self.copies_late.0);
        if self.note("copies late", any) { self.copies_late.1 } else { 0 }
    }

    pub(crate) fn deliveries(&mut self) -> Deliveries {
        let lost = take_one(&mut self.events_lost);
        if self.note("events lost", lost) {
            return Vec::new();
        }
        let any = take_one(&mut self.events_late.0);
        let late = if self.note("events late", any) { self.events_late.1 } else { 0 };
        let twice = take_one(&mut self.events_twice);
        if self.note("events twice", twice) { vec![late, late] } else { vec![late] }
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn take(&mut self, service: Service, operation: &str) -> Option<CallFault> {
        let at = self
            .armed
            .iter()
            .position(|a| a.left > 0 && a.service == service && (a.operation == "*" || a.operation == operation))?;
        let armed = &mut self.armed[at];
        armed.left -= 1;
        let fault = armed.fault;
        if armed.left == 0 {
            self.armed.remove(at);
        }
        self.note(&format!("{fault:?} {}:{operation}", service.prefix()), true);
        Some(fault)
    }
}

fn take_one(left: &mut u32) -> bool {
    let any = *left > 0;
    *left = left.saturating_sub(1);
    any
}

pub(crate) fn throttled(service: Service) -> ApiError {
    match service {
        Service::Ec2 => ApiError::new("RequestLimitExceeded", "Request limit exceeded.").with_status(503),
        Service::S3 => ApiError::new("SlowDown", "Please reduce your request rate.").with_status(503),
        Service::Sts | Service::Sns => ApiError::new("Throttling", "Rate exceeded"),
        Service::Ssm | Service::CloudHsm | Service::Secrets | Service::Kms => {
            ApiError::new("ThrottlingException", "Rate exceeded")
        }
    }
}

pub(crate) fn server_error(service: Service) -> ApiError {
    let (code, message) = match service {
        Service::Ssm => ("InternalServerError", "An error occurred on the server side."),
        Service::CloudHsm => ("CloudHsmInternalFailureException", "The request was rejected because of an internal failure."),
        Service::Secrets => ("InternalServiceError", "An error occurred on the server side."),
        Service::Ec2 | Service::S3 => ("InternalError", "An internal error has occurred."),
        Service::Sts => ("InternalFailure", "An internal error has occurred."),
        Service::Kms => ("KMSInternalException", "The request was rejected because an internal exception occurred."),
        Service::Sns => ("InternalError", "An internal error has occurred."),
    };
    ApiError::new(code, message).with_status(500)
}

/// The refusal of a caller without the right, as `service` words it.
pub fn denied(service: Service, who: &str, operation: &str) -> ApiError {
    let action = format!("{}:{operation}", service.prefix());
    let text =
        format!("User: {who} is not authorized to perform: {action} because no identity-based policy allows the {action} action");
    match service {
        Service::Ec2 => {
            ApiError::new("UnauthorizedOperation", format!("You are not authorized to perform this operation. {text}"))
                .with_status(403)
        }
        Service::S3 | Service::Sts => ApiError::new("AccessDenied", text).with_status(403),
        Service::Sns => ApiError::new("AuthorizationError", text).with_status(403),
        Service::CloudHsm => ApiError::new("CloudHsmAccessDeniedException", text),
        Service::Ssm | Service::Secrets | Service::Kms => ApiError::new("AccessDeniedException", text),
    }
}
