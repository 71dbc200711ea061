//! The one program of all functions: its handler's name (`_HANDLER`) says which it is.
//!
//! Started once and then asked again and again by Lambda's runtime API. Configuration is read and clients are made before the
//! first question. A function that cannot be configured says so to every question: that is seen, a program that ends is not.

#![forbid(unsafe_code)]

use lambda_runtime::{Error, LambdaEvent, Runtime, service_fn};
use serde_json::Value;
use std::io::Write as _;
use std::time::SystemTime;
use tde2hsm_cloud::DrAws;
use tde2hsm_dr_driver::{DrConfig, Job, Outcome};
use tde2hsm_lambdas::config::ConfigError;
use tde2hsm_lambdas::{config, emf, handle};
use tde2hsm_protocol::{Severity, Timestamp};

struct Function {
    job: Job,
    config: DrConfig,
    aws: DrAws,
}

fn main() -> Result<(), Error> {
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_target(false)
        // Lambda stamps each line itself.
        .without_time()
        .with_max_level(tracing::Level::INFO)
        .init();
    // One question at a time: a second thread would only cost memory and start.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let function = start().await;
        if let Err(error) = &function {
            tracing::error!(code = %error.code, problems = ?error.problems, "the function is not configured");
        }
        let function = &function;
        Runtime::new(service_fn(move |event: LambdaEvent<Value>| answer(function, event))).run().await
    })
}

async fn start() -> Result<Function, ConfigError> {
    let variable = |name: &str| std::env::var(name).ok();
    let job = config::job(variable(config::HANDLER).as_deref())?;
    let config = config::read(&variable)?;
    let region = aws_config::Region::new(config.dr_region.to_string());
    // Named, so that nothing has to be asked to find one; each client has its own.
    let sdk = aws_config::defaults(aws_config::BehaviorVersion::latest())
        .region(region)
        .timeout_config(tde2hsm_cloud_call::timeouts())
        .load()
        .await;
    let aws = DrAws::new(&sdk, &config);
    aws.warm(job);
    Ok(Function { job, config, aws })
}

async fn answer(function: &Result<Function, ConfigError>, event: LambdaEvent<Value>) -> Result<Value, Error> {
    let function = function.as_ref().map_err(Clone::clone)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let now = Timestamp(i64::try_from(now).unwrap_or(i64::MAX));
    let answer = handle(function.job, &event.payload, now, &function.aws, &function.config).await;
    let outcome = match &answer {
        Ok(outcome) => outcome,
        Err(again) => &again.outcome,
    };
    tell(outcome, &function.config.fleet, &event.context.request_id);
    match answer {
        Ok(outcome) => Ok(tde2hsm_lambdas::answer(outcome)?),
        Err(again) => Err(again.into()),
    }
}

fn tell(outcome: &Outcome, fleet: &str, request: &str) {
    let function = outcome.job.name();
    for message in &outcome.messages {
        let (code, text) = (message.code, &message.text);
        match message.severity {
            Severity::Error => tracing::error!(function, fleet, request, %code, "{text}"),
            Severity::Warning => tracing::warn!(function, fleet, request, %code, "{text}"),
            Severity::Note => tracing::info!(function, fleet, request, %code, "{text}"),
        }
    }
    let counts = serde_json::to_string(&outcome.counts).unwrap_or_default();
    let unasked = outcome.unasked.len();
    tracing::info!(function, fleet, request, counts, unasked, "done");
    let mut lines = emf::lines(outcome, fleet).join("\n");
    if !lines.is_empty() {
        lines.push('\n');
        // A log that cannot be written is nobody's to be told.
        let _ = std::io::stdout().lock().write_all(lines.as_bytes());
    }
}
