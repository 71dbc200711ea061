//! What every command needs: credentials, the journal, the clock, and whether someone pressed Ctrl-C.

use crate::args::{Anew, Approval, Global};
use crate::failure::{Failure, file};
use crate::out::Out;
use async_trait::async_trait;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tde2hsm_campaign::fleet::Fleet;
use tde2hsm_campaign::plan::Plan;
use tde2hsm_campaign::reducer::{EventKind, State};
use tde2hsm_cloud::{Aws, Choice, DrAws};
use tde2hsm_dr_driver::DrConfig;
use tde2hsm_driver::Clock;
use tde2hsm_journal_sqlite::SqliteJournal;
use tde2hsm_protocol::{AccountId, Code, Region, Timestamp};
use tokio::sync::Notify;

#[derive(Debug, Clone)]
pub struct Context {
    pub out: Out,
    choice: Choice,
    journal: Option<PathBuf>,
    pub clock: SystemClock,
}

impl Context {
    pub fn new(global: &Global) -> Context {
        let choice = Choice { profile: global.profile.clone(), region: global.region.clone() };
        Context { out: Out { format: global.output }, choice, journal: global.journal.clone(), clock: SystemClock::default() }
    }

    /// AWS, in the region that the command line names, else the given one, else AWS's own environment's.
    pub async fn aws(&self, region: Option<&Region>) -> Result<Aws, Failure> {
        Aws::connect(&self.choice, region).await.map_err(|e| match e.call.service {
            "config" => Failure::usage(e.message).hint("pass `--region NAME`, or set AWS_REGION"),
            _ => e.into(),
        })
    }

    /// AWS in this account and region, or a refusal: what was planned for one account must not be done in another.
    pub async fn aws_of(&self, account: &AccountId, region: &Region) -> Result<Aws, Failure> {
        let aws = self.aws(Some(region)).await?;
        if aws.region != *region {
            return Err(Failure::new(Code::WRONG_REGION, format!("the region is `{}`, not `{region}`", aws.region)));
        }
        // Two regions are asked, and on the day it matters which of them does not answer.
        let caller = aws.sts.caller().await.map_err(|e| {
            let failure = Failure::from(e);
            Failure { message: format!("{region}: {}", failure.message), ..failure }
        })?;
        if caller.account != *account {
            let message = format!("the credentials are of account {}, not {account} (`{}`)", caller.account, caller.arn);
            return Err(Failure::new(Code::WRONG_ACCOUNT, message));
        }
        Ok(aws)
    }

    /// AWS where a plan is to be carried out, with the document that the plan pins.
    pub async fn aws_for(&self, plan: &Plan) -> Result<Aws, Failure> {
        let aws = self.aws_of(&plan.account, &plan.region).await?;
        aws.ssm.check_document(&plan.document).await?;
        Ok(aws)
    }

    /// AWS where a campaign goes on, with the document that it uses now; and the event that names another, where the
    /// operator wants the one that is there.
    pub async fn aws_again(&self, state: &State, anew: &Anew, approval: &Approval) -> Result<(Aws, Option<EventKind>), Failure> {
        let aws = self.aws_of(&state.plan().account, &state.plan().region).await?;
        if !anew.document {
            aws.ssm.check_document(state.document()).await?;
            return Ok((aws, None));
        }
        let document = crate::drive::document_anew(self.out, &aws, state.document(), approval.yes).await?;
        Ok((aws, document.map(|document| EventKind::DocumentNamed { document })))
    }

    /// Source and second region at once, for the recovery jobs.
    pub async fn both_regions(&self, config: &DrConfig) -> DrAws {
        DrAws::connect(&self.choice, config).await
    }

    pub fn journal_path(&self) -> Result<PathBuf, Failure> {
        if let Some(path) = &self.journal {
            return Ok(path.clone());
        }
        let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
        let dir =
            state.or(home).ok_or_else(|| Failure::usage("neither HOME nor XDG_STATE_HOME is set; pass `--journal PATH`"))?;
        Ok(dir.join("tde2hsm/journal.db"))
    }

    pub async fn journal(&self) -> Result<SqliteJournal, Failure> {
        Ok(SqliteJournal::open(&self.journal_path()?).await?)
    }

    /// The journal of commands that only read: one that is not there holds no campaign, and is not made.
    pub async fn existing_journal(&self) -> Result<SqliteJournal, Failure> {
        let path = self.journal_path()?;
        if !path.exists() {
            let failure = Failure::new(Code::CAMPAIGN_UNKNOWN, format!("there is no journal at `{}`", path.display()));
            return Err(
                failure.hint("name another file with `--journal`, or rebuild it from the hosts with `tde2hsm adopt plan.json`")
            );
        }
        Ok(SqliteJournal::open(&path).await?)
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

pub fn file_text(path: &Path, code: Code) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|e| file("read", path, code, &e))
}

pub fn read_fleet(path: &Path) -> Result<Fleet, Failure> {
    let text = file_text(path, Code::FLEET_UNREADABLE)?;
    Fleet::parse(&text).map_err(|e| {
        let failure = Failure::from(e);
        Failure { message: format!("{}: {}", path.display(), failure.message), ..failure }
    })
}

pub fn read_plan(path: &Path) -> Result<Plan, Failure> {
    let text = file_text(path, Code::PLAN_UNREADABLE)?;
    Ok(Plan::from_json(&text)?)
}

/// Writes a file whole or not at all.
pub fn write_file(path: &Path, text: &str) -> Result<(), Failure> {
    let wrong = |e: std::io::Error| file("written", path, Code::ARGUMENT_FILE, &e);
    let name = path
        .file_name()
        .ok_or_else(|| Failure::new(Code::ARGUMENT_FILE, format!("`{}` is not a file's path", path.display())))?;
    let temporary = path.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    std::fs::write(&temporary, text).map_err(wrong)?;
    std::fs::rename(&temporary, path).map_err(|e| {
        let _ = std::fs::remove_file(&temporary);
        wrong(e)
    })
}

/// This machine's clock. Wakes early when someone wants to stop.
#[derive(Debug, Clone, Default)]
pub struct SystemClock {
    stop: Arc<AtomicBool>,
    wake: Arc<Notify>,
}

impl SystemClock {
    /// The first Ctrl-C ends the loop where the journal is complete, the second the program.
    pub fn stop_on_signals(&self, out: Out) {
        let (stop, wake) = (Arc::clone(&self.stop), Arc::clone(&self.wake));
        tokio::spawn(async move {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            loop {
                tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
                if stop.swap(true, Ordering::SeqCst) {
                    std::process::exit(crate::exit::Exit::Interrupted as i32);
                }
                out.say("stopping after the call in hand; hosts go on with what they were sent. Again to leave at once");
                wake.notify_waiters();
                wake.notify_one();
            }
        });
    }

    /// Waits in plain time, for what has no campaign.
    pub async fn pause(&self, seconds: i64) {
        self.sleep_until(self.now().plus(seconds)).await;
    }
}

/// A timer stands still while a laptop is closed, the time of the day does not: what was due meanwhile is not waited for anew.
async fn sleep_until(until: Timestamp, now_millis: impl Fn() -> i64) {
    const SLICE: Duration = Duration::from_millis(250);
    loop {
        let left = i128::from(until.0) * 1_000 - i128::from(now_millis());
        let Some(left) = u64::try_from(left).ok().filter(|left| *left > 0) else { return };
        tokio::time::sleep(Duration::from_millis(left).min(SLICE)).await;
    }
}

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp(jiff::Timestamp::now().as_second())
    }

    async fn sleep_until(&self, until: Timestamp) {
        if self.stopping() {
            return;
        }
        let slept = sleep_until(until, || jiff::Timestamp::now().as_millisecond());
        tokio::select! { () = slept => {}, () = self.wake.notified() => {} }
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicI64;

    #[tokio::test]
    async fn a_pause_that_a_closed_laptop_slept_through_is_over() {
        let (clock, began) = (AtomicI64::new(1_000), std::time::Instant::now());
        // The lid is shut for an hour right after the first look.
        let now = || clock.fetch_add(3_600_000, Ordering::SeqCst);
        sleep_until(Timestamp(300), now).await;
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        // One that has not come is waited for.
        let began = std::time::Instant::now();
        let start = jiff::Timestamp::now().as_millisecond();
        sleep_until(Timestamp(start / 1_000 + 1), || jiff::Timestamp::now().as_millisecond()).await;
        let ended = jiff::Timestamp::now().as_millisecond();
        assert!(ended >= (start / 1_000 + 1) * 1_000 && began.elapsed() < Duration::from_secs(5));
    }
}
