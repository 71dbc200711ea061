//! Answers as people read them. No colour: meaning is in the words.

use std::fmt::Write as _;
use tde2hsm_campaign::reducer::{End, HostStatus, Protected, Protection, Summary};
use tde2hsm_campaign::rules::Finding;
use tde2hsm_protocol::wire::printable;
use tde2hsm_protocol::{Severity, Timestamp};

pub fn finding(finding: &Finding) -> String {
    let severity = match finding.severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    let place = finding.instance.as_ref().map(|i| format!(" {i}")).unwrap_or_default();
    let sid = finding.sid.as_ref().map(|s| format!("/{s}")).unwrap_or_default();
    let container = finding.container.as_ref().map(|c| format!("/{c}")).unwrap_or_default();
    let accepted = if finding.accepted { " (accepted)" } else { "" };
    let message = printable(&finding.message, 400);
    let way_out = printable(&finding.way_out, 400);
    format!("{severity}[{}]{place}{sid}{container}{accepted}: {message}\n  way out: {way_out}", finding.code)
}

pub fn end(end: End) -> &'static str {
    match end {
        End::Done => "every host is done",
        End::Undone => "every host is undone",
        End::Incomplete => "nothing is left to do; some hosts are not done",
        End::BudgetSpent => "as many hosts failed as the budget allows; the others were not touched",
        End::LoginRefused => "a password was refused",
        End::WindowClosed => "the window has closed",
        End::Unprotected => "the new keys are not known to be in a backup, and no further wave was begun",
        End::Superseded => "a newer controller has taken the campaign over",
    }
}

pub fn summary(summary: &Summary, now: Timestamp) -> String {
    let mut text = String::new();
    let campaign = summary.campaign.as_ref().map_or("(none)", |c| c.as_str());
    let standing = match summary.end {
        Some(how) => format!("ended: {}", end(how)),
        None => "under way".to_owned(),
    };
    let _ = writeln!(text, "campaign {campaign}, {standing}");
    let _ = writeln!(text, "plan {}", summary.plan);
    let counts: Vec<String> = summary.counts.iter().map(|(standing, n)| format!("{n} {standing}")).collect();
    let _ = writeln!(text, "hosts: {}; failed {} of a budget of {}", counts.join(", "), summary.failed, summary.budget);
    for secret in &summary.frozen {
        let _ = writeln!(text, "frozen: a login with `{}` version `{}` was refused", secret.arn, secret.version);
    }
    if let Some(protection) = &summary.protection {
        text.push_str(&keys(protection, now));
    }
    for missing in summary.inventories.iter().flat_map(|inventories| &inventories.missing) {
        let code = missing.code.map(|code| format!("{code} ")).unwrap_or_default();
        let _ = writeln!(text, "no key inventory of {}: {code}{}", missing.instance, printable(&missing.why, 240));
    }
    if summary.disbelieved > 0 {
        let _ = writeln!(text, "{} reports were not believed", summary.disbelieved);
    }
    text.push('\n');
    for host in &summary.hosts {
        text.push_str(&host_line(host, now));
    }
    text
}

/// Where the new keys lie (H8).
fn keys(protection: &Protection, now: Timestamp) -> String {
    let mut text = String::new();
    for wave in &protection.waves {
        let copy = match (&wave.copy, &protection.second) {
            (Some(copy), Some(region)) => format!(" and in its copy {copy} in {region}"),
            _ => String::new(),
        };
        let _ = writeln!(text, "keys of wave {} are in {}{copy}", wave.wave, wave.backup);
    }
    match protection.standing {
        Protected::Off => text.push_str("keys: not protected, the plan waits for no backup of them\n"),
        Protected::NoKeys | Protected::Protected => {}
        Protected::Waits | Protected::Stuck => {
            if let Some(why) = &protection.why {
                let code = why.code.map(|code| format!("{code} ")).unwrap_or_default();
                let since = now.since(why.since).max(0);
                let waits_for = printable(&why.waits_for, 400);
                let _ = writeln!(text, "keys: not protected: {code}wait for {waits_for} since {since} s");
                let _ = writeln!(text, "    unblocked by {}", printable(&why.unblocked_by, 200));
            }
        }
    }
    text
}

fn host_line(host: &HostStatus, now: Timestamp) -> String {
    let mut text = String::new();
    let wave = host.wave.map(|w| format!("wave {w}")).unwrap_or_else(|| "no wave yet".to_owned());
    let _ = write!(text, "{:<20} {:<14} {:<12}", host.instance, host.standing, wave);
    if let Some(step) = host.step {
        let _ = write!(text, " {step}");
    }
    if let Some(code) = host.code {
        let _ = write!(text, " {code}");
    }
    if !host.message.is_empty() {
        let _ = write!(text, " {}", printable(&host.message, 240));
    }
    text.push('\n');
    if let Some(why) = &host.why {
        let since = now.since(why.since).max(0);
        let _ = writeln!(
            text,
            "    waits for {} since {since} s; unblocked by {}",
            printable(&why.waits_for, 200),
            printable(&why.unblocked_by, 200)
        );
    }
    for database in &host.databases {
        let away = if database.away > 0 { format!(", away {} s", database.away) } else { String::new() };
        let orphans = if database.orphans > 0 { format!(", {} orphan keys", database.orphans) } else { String::new() };
        let code = database.outcome.code().map(|c| format!(" {c}")).unwrap_or_default();
        let _ =
            writeln!(text, "    {}: {}{code}, {} starts{away}{orphans}", database.sid, database.outcome.name(), database.starts);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tde2hsm_protocol::{Code, InstanceId};

    /// H36: what a host wrote into a message cannot move the cursor or forge a line.
    #[test]
    fn h36_a_finding_is_two_lines_whatever_a_host_says() {
        let text = finding(&Finding {
            code: Code::AGENT_OFFLINE,
            severity: Severity::Error,
            instance: Some(InstanceId::new("i-0123456789abcdef0").unwrap()),
            sid: None,
            container: None,
            message: "\u{1b}[2Jgone\nerror[TDE0001]: forged".to_owned(),
            way_out: "start it".to_owned(),
            accepted: false,
        });
        assert_eq!(text, "error[TDE0101] i-0123456789abcdef0: ?[2Jgone?error[TDE0001]: forged\n  way out: start it");
    }
}
