//! Carries a campaign's decisions out, and decides nothing.
//!
//! The reducer says what to do; this does it, in its order, and writes down what came of it. Safe because of one
//! rule: before an effect its intent is in the journal, and after it its result, each durable before the next thing
//! happens. If this program dies between any two of them, the journal says what may have happened, and the same
//! reducer asks for it to be looked up. A journal that another controller has written to refuses the intent, so that
//! the effect does not happen (H32).
//!
//! Generic over the cloud, the journal and the clock: the command line loops with [`Driver::run`], a Lambda calls
//! [`Driver::turn`], tests use neither network nor time.

#![forbid(unsafe_code)]

mod open;
mod ports;
mod turn;

pub use open::{OpenError, plan_of};
pub use ports::{
    Answer, Backups, Clock, Cloud, Command, Fault, Invocation, NeverAsks, Observer, Operator, SendError, Silent, Stage,
};
pub use turn::{DriverError, Turn};

use std::collections::BTreeMap;
use std::sync::Arc;
use tde2hsm_campaign::plan::Plan;
use tde2hsm_campaign::reducer::{Event, EventKind, State};
use tde2hsm_journal::{Body, Head, Journal, JournalError};
use tde2hsm_protocol::{CampaignId, OrderToken, Timestamp};

/// One campaign in hand: its state and the head of its journal.
pub struct Driver<'a> {
    journal: &'a dyn Journal,
    cloud: &'a dyn Cloud,
    clock: &'a dyn Clock,
    observer: &'a dyn Observer,
    campaign: CampaignId,
    state: State,
    head: Head,
    /// When each open command is to be read next. Lost with the program, and then they are all read at once.
    due: BTreeMap<OrderToken, Timestamp>,
}

impl<'a> Driver<'a> {
    /// Begins a campaign. Its first events are written in one append that expects an empty journal, so that of two
    /// controllers that begin the same campaign one is refused.
    pub async fn start(
        journal: &'a dyn Journal,
        cloud: &'a dyn Cloud,
        clock: &'a dyn Clock,
        observer: &'a dyn Observer,
        plan: Arc<Plan>,
        campaign: CampaignId,
        first: Vec<EventKind>,
    ) -> Result<Driver<'a>, JournalError> {
        journal.keep(plan.digest(), &plan.to_json()).await?;
        let state = State::new(plan);
        let mut driver = Driver { journal, cloud, clock, observer, campaign, state, head: Head::START, due: BTreeMap::new() };
        driver.record(first).await?;
        Ok(driver)
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn campaign(&self) -> &CampaignId {
        &self.campaign
    }

    pub fn head(&self) -> Head {
        self.head
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Writes events down, durably, and only then believes them.
    pub async fn record(&mut self, kinds: Vec<EventKind>) -> Result<(), JournalError> {
        if kinds.is_empty() {
            return Ok(());
        }
        let at = self.clock.now();
        let events: Vec<Event> = kinds.into_iter().map(|kind| Event { at, kind }).collect();
        let bodies: Vec<Body> = events.iter().map(Body::of).collect();
        self.head = self.journal.append(&self.campaign, self.head.seq, at, &bodies).await?;
        for event in &events {
            self.state.apply(event);
            self.observer.event(event, &self.state);
        }
        Ok(())
    }
}
