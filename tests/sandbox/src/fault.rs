//! The faults of a sandbox, one row each: `sandbox fault --help` prints this table.

use crate::sandbox::Sandbox;
use std::fmt::Write as _;
use tde2hsm_model::{CallFault, Service};

type Apply = fn(&Sandbox, &[&str]) -> Result<String, String>;

struct Fault {
    name: &'static str,
    args: &'static str,
    about: &'static str,
    apply: Apply,
}

const FAULTS: &[Fault] = &[
    Fault {
        name: "throttle",
        args: "SERVICE:OPERATION|SERVICE:* TIMES",
        about: "the next calls are throttled",
        apply: |s, a| call(s, a, CallFault::Throttle),
    },
    Fault {
        name: "server-error",
        args: "SERVICE:OPERATION TIMES",
        about: "the next calls end in HTTP 500, nothing done",
        apply: |s, a| call(s, a, CallFault::ServerError),
    },
    Fault {
        name: "lose-reply",
        args: "SERVICE:OPERATION TIMES",
        about: "the next calls are carried out, their replies lost",
        apply: |s, a| call(s, a, CallFault::LoseReply),
    },
    Fault {
        name: "lose-request",
        args: "SERVICE:OPERATION TIMES",
        about: "the connection dies before the next calls are carried out",
        apply: |s, a| call(s, a, CallFault::LoseRequest),
    },
    Fault {
        name: "deny",
        args: "SERVICE:OPERATION TIMES",
        about: "the caller has no right to the next calls",
        apply: |s, a| call(s, a, CallFault::Deny),
    },
];

/// The table as people read it.
pub fn table() -> String {
    let mut out = String::new();
    for fault in FAULTS {
        let _ = writeln!(out, "  {:<22} {:<36} {}", fault.name, fault.args, fault.about);
    }
    out
}

pub fn apply(sandbox: &Sandbox, name: &str, args: &[String]) -> Result<String, String> {
    let fault =
        FAULTS.iter().find(|f| f.name == name).ok_or_else(|| format!("there is no fault `{name}`; see: sandbox fault --help"))?;
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    (fault.apply)(sandbox, &args).map_err(|why| format!("{why}; usage: sandbox fault {} {}", fault.name, fault.args))
}

fn call(sandbox: &Sandbox, args: &[&str], fault: CallFault) -> Result<String, String> {
    let [what, times] = args else { return Err("two arguments are needed".to_owned()) };
    let (service, operation) = what.split_once(':').ok_or("the operation is written SERVICE:OPERATION")?;
    let service = Service::from_prefix(service).ok_or_else(|| format!("there is no service `{service}`"))?;
    let times = times.parse().map_err(|_| format!("`{times}` is no number"))?;
    sandbox.cloud.world().faults.arm(fault, service, operation, times);
    Ok(format!("armed on the next {times} of {what}"))
}
