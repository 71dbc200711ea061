//! A plan as people read it.

use crate::fleet::{OnFailure, ProtectMode};
use crate::plan::{ConfigurationStyle, DatabasePlan, HostPlan, Plan, SecretPurpose};
use crate::rules::Finding;
use std::fmt::Write as _;
use tde2hsm_protocol::{AutoOpen, Direction, KeyAvailabilityCheck, RestartProof, Severity, Source, Step, Timestamp};

/// An instant in UTC, to the second.
pub fn instant(at: Timestamp) -> String {
    jiff::Timestamp::from_second(at.0).map_or_else(|_| format!("{} s", at.0), |t| t.to_string())
}

fn span(seconds: u32) -> String {
    match seconds {
        s if s % 3600 == 0 => format!("{} h", s / 3600),
        s if s % 60 == 0 => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}

/// A word and its number.
fn many(n: usize, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") }
}

/// The text of `plan show`: no colour, nothing left out that the operator approves.
pub fn plan(plan: &Plan) -> String {
    let mut out = String::new();
    write(plan, &mut out).expect("writing to a string");
    out
}

fn write(plan: &Plan, out: &mut String) -> std::fmt::Result {
    let undo = plan.direction == Direction::Undo;
    let databases: usize = plan.hosts.iter().map(|h| h.databases.len()).sum();
    let verb = if undo { "undo" } else { "migrate" };
    writeln!(out, "Plan {} to {verb} fleet `{}`", plan.digest(), plan.fleet)?;
    writeln!(out)?;
    writeln!(out, "  made       {} by tde2hsm {}", instant(plan.made_at), plan.program)?;
    writeln!(out, "  account    {} in {}", plan.account, plan.region)?;
    let hsms: Vec<String> = plan.target.hsms.iter().map(ToString::to_string).collect();
    writeln!(out, "  cluster    {} (HSMs {})", plan.target.cluster, hsms.join(", "))?;
    if plan.target.key_availability_check == KeyAvailabilityCheck::Off {
        writeln!(out, "             the SDK's check that a key lies on two HSMs is OFF")?;
    }
    writeln!(out, "  document   {} version {}, sha256 {}", plan.document.name, plan.document.version, plan.document.hash)?;
    let mut replicas: Vec<String> = plan.escrow.replica_regions.iter().map(ToString::to_string).collect();
    if replicas.is_empty() {
        replicas.push("no other region".to_owned());
    }
    writeln!(out, "  escrow     {}/…, replicated to {}", plan.escrow.prefix, replicas.join(", "))?;
    let end = |t: Option<Timestamp>| t.map_or_else(|| "any time".to_owned(), instant);
    writeln!(out, "  window     {} to {}", end(plan.window.not_before), end(plan.window.not_after))?;
    writeln!(out, "  {} with {}, {} refused", many(plan.hosts.len(), "host"), many(databases, "database"), plan.refused.len())?;

    writeln!(out, "\nSecrets (pinned)")?;
    for secret in &plan.secrets {
        let purpose = match secret.purpose {
            SecretPurpose::OldHsm => "old HSM",
            SecretPurpose::Cloudhsm => "CloudHSM",
            SecretPurpose::Software => "software",
        };
        writeln!(out, "  {purpose:<9} {} version {}", secret.secret.arn, secret.secret.version)?;
        if let (Some(first), false) = (secret.provers.first(), undo) {
            writeln!(out, "            proven once, on {first}, before any other host is staged")?;
        }
    }

    writeln!(out, "\nWaves")?;
    let waves = &plan.waves;
    let domain = waves.failure_domain.as_ref().map_or_else(String::new, |d| format!(" in each failure domain (tag `{d}`)"));
    if undo {
        writeln!(out, "  at most {} at a time", many(usize::from(waves.concurrency), "host"))?;
    } else {
        writeln!(
            out,
            "  canary of {}; then as many as the smaller of concurrency {} and budget {} less failed hosts{domain}",
            many(usize::from(waves.canary), "host"),
            waves.concurrency,
            waves.budget
        )?;
        for (number, wave) in waves.expected.iter().enumerate() {
            let hosts: Vec<&str> = wave.iter().map(|i| i.as_str()).collect();
            writeln!(out, "  {:>3}  {}", number + 1, hosts.join(" "))?;
        }
        let failure = match plan.policy.on_failure {
            OnFailure::Undo => "a host that fails in cutover or prove is undone",
            OnFailure::Hold => "a host that fails is held as it is",
        };
        writeln!(
            out,
            "  {failure}; a failure that may pass is tried again {}",
            match plan.policy.retries {
                1 => "once".to_owned(),
                n => format!("{n} times"),
            }
        )?;
    }
    writeln!(
        out,
        "  orders are valid for {}, hosts are asked every {}",
        span(plan.policy.order_seconds),
        span(plan.policy.poll_seconds)
    )?;

    write_protect(plan, out)?;

    writeln!(out, "\nHosts")?;
    for host in &plan.hosts {
        write_host(host, undo, out)?;
    }

    let typed: Vec<_> = each(plan).filter(|(_, d)| !d.typed.is_empty()).collect();
    if !typed.is_empty() {
        writeln!(out, "\nTo be typed after each restart of the host")?;
        for (host, database) in typed {
            for line in &database.typed {
                writeln!(out, "  {} {}: {line}", host.instance, database.order.sid)?;
            }
        }
    }
    writeln!(out, "\nMust stay until `tde2hsm dr retire-when` names a date")?;
    let mut kept: Vec<(&str, Vec<String>)> = Vec::new();
    for (_, database) in each(plan) {
        for what in &database.keeps {
            match kept.iter_mut().find(|(w, _)| w == what) {
                Some((_, sids)) => sids.push(database.order.sid.to_string()),
                None => kept.push((what, vec![database.order.sid.to_string()])),
            }
        }
    }
    for (what, sids) in kept {
        writeln!(out, "  {what} ({})", sids.join(", "))?;
    }

    if !plan.refused.is_empty() {
        writeln!(out, "\nRefused")?;
        for refused in &plan.refused {
            writeln!(out, "  {}", refused.instance)?;
            for found in &refused.findings {
                write_finding(found, "    ", out)?;
            }
        }
    }
    if !plan.findings.is_empty() {
        writeln!(out, "\nFindings")?;
        for found in &plan.findings {
            write_finding(found, "  ", out)?;
        }
    }
    Ok(())
}

fn write_protect(plan: &Plan, out: &mut String) -> std::fmt::Result {
    let Some(protect) = &plan.protect else { return Ok(()) };
    if protect.mode == ProtectMode::Off {
        return writeln!(out, "  NOBODY WAITS for a backup of the new keys: until there is one they lie in the live HSMs alone");
    }
    let copied = protect.second.as_ref().map_or_else(String::new, |second| format!(" and its copy in {}", second.region));
    writeln!(
        out,
        "  no wave begins, and nothing is done, before an HSM backup with the keys of the wave before is READY{copied}"
    )?;
    match protect.mode {
        ProtectMode::Force => {
            let waves = plan.waves.expected.len();
            writeln!(
                out,
                "  for it one HSM is added and removed again, once a wave: {}, each billed by the hour, an hour at least",
                many(waves, "HSM")
            )?;
        }
        _ => writeln!(out, "  CloudHSM makes one by itself at least every 24 h")?,
    }
    writeln!(out, "  after {} without it the campaign ends unprotected, and says so", span(protect.wait_seconds))
}

fn each(plan: &Plan) -> impl Iterator<Item = (&HostPlan, &DatabasePlan)> {
    plan.hosts.iter().flat_map(|h| h.databases.iter().map(move |d| (h, d)))
}

fn write_host(host: &HostPlan, undo: bool, out: &mut String) -> std::fmt::Result {
    let domain = if host.domain.is_empty() { String::new() } else { format!("  ({})", host.domain) };
    writeln!(out, "  {}{domain}", host.instance)?;
    for segment in &host.segments {
        let steps: Vec<&str> = segment.steps.iter().map(|s: &Step| s.name()).collect();
        let undo = if undo { "undo " } else { "" };
        writeln!(out, "    {undo}{:<8} {}", segment.segment, steps.join(", "))?;
    }
    for database in &host.databases {
        let source = match database.order.source {
            Source::OldHsm { .. } => "old HSM",
            Source::Software => "software keystore",
        };
        let style = match database.style {
            ConfigurationStyle::Sqlnet => "sqlnet.ora",
            ConfigurationStyle::WalletRoot => "WALLET_ROOT",
        };
        writeln!(
            out,
            "    {:<10} {} from {source}, {style}, {}",
            database.order.sid,
            database.version,
            many(usize::from(database.containers), "container")
        )?;
        let restarts = database.restarts;
        let open = match database.order.auto_open {
            AutoOpen::Enable => "opens by itself",
            AutoOpen::Typed => "password is typed",
        };
        let proof = match database.order.restart_proof {
            RestartProof::Skip if !undo => ", NOT proven across a restart",
            _ => "",
        };
        let back = if database.reversible { "reversible" } else { "NOT reversible" };
        writeln!(
            out,
            "    {:<10} {} (swap {}, proof {}), {open}, {back}{proof}",
            "",
            many(usize::from(restarts.total()), "restart"),
            restarts.swap,
            restarts.proof
        )?;
    }
    Ok(())
}

/// One finding, as lists of them show it.
pub fn finding(found: &Finding) -> String {
    let mut out = String::new();
    write_finding(found, "", &mut out).expect("writing to a string");
    out
}

fn write_finding(found: &Finding, indent: &str, out: &mut String) -> std::fmt::Result {
    let severity = match (found.severity, found.accepted) {
        (Severity::Error, _) => "error",
        (Severity::Warning, true) => "accepted",
        (Severity::Warning, false) => "warning",
        (Severity::Note, _) => "note",
    };
    let place: Vec<String> = [
        found.instance.as_ref().map(ToString::to_string),
        found.sid.as_ref().map(ToString::to_string),
        found.container.as_ref().map(ToString::to_string),
    ]
    .into_iter()
    .flatten()
    .collect();
    let place = if place.is_empty() { String::new() } else { format!("{}: ", place.join(" ")) };
    writeln!(out, "{indent}{} {severity:<8} {place}{}", found.code, found.message)?;
    if found.severity != Severity::Note && !found.accepted {
        writeln!(out, "{indent}{:7} hint: {}", "", found.way_out)?;
    }
    Ok(())
}
