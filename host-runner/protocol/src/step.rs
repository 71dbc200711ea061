//! The table of steps (design §4). A step is the smallest thing that can be done or undone on a host; adding one is
//! one row here and one file in the runner.

use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    Survey,
    BackUp,
    StageClient,
    PrepareKeystore,
    ReverseMigrate,
    Escrow,
    SwapProvider,
    Migrate,
    EnableAutoOpen,
    Prove,
    RestartProof,
    Neutralise,
    DrillOpen,
}

/// What a host runs in one go between two gates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Segment {
    Stage,
    Cutover,
    Prove,
    /// On a host made of copies, in another region, for a drill (H44); no campaign has it.
    Drill,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    Do,
    Undo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Host,
    /// All databases that share one `sqlnet.ora` (H16).
    HomeGroup,
    Database,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reversibility {
    /// Nothing to undo: facts, or copies that are kept.
    Keeps,
    /// What it added is removed again.
    Removes,
    /// Undone by another key rotation; no key is ever deleted.
    Migrates,
    /// Undone by a restart on the former provider.
    Restarts,
    /// Done to a copy that is thrown away.
    Never,
}

#[derive(Debug, Clone, Copy)]
pub struct StepInfo {
    pub step: Step,
    pub name: &'static str,
    pub scope: Scope,
    pub segment: Option<Segment>,
    pub reversibility: Reversibility,
    pub does: &'static str,
    pub undo: &'static str,
}

const fn row(
    step: Step,
    name: &'static str,
    scope: Scope,
    segment: Option<Segment>,
    reversibility: Reversibility,
    does: &'static str,
    undo: &'static str,
) -> StepInfo {
    StepInfo { step, name, scope, segment, reversibility, does, undo }
}

pub const STEPS: [StepInfo; 13] = [
    row(Step::Survey, "survey", Scope::Host, None, Reversibility::Keeps, "facts only", "nothing to undo"),
    row(
        Step::BackUp,
        "back-up",
        Scope::Host,
        Some(Segment::Stage),
        Reversibility::Keeps,
        "copies and hashes configuration, keystores, provider tree and control file",
        "keeps the copies",
    ),
    row(
        Step::StageClient,
        "stage-client",
        Scope::Host,
        Some(Segment::Stage),
        Reversibility::Removes,
        "installs and configures the CloudHSM client, proves the login once",
        "removes what it added",
    ),
    row(
        Step::PrepareKeystore,
        "prepare-keystore",
        Scope::Database,
        Some(Segment::Cutover),
        Reversibility::Keeps,
        "creates the software keystore and proves its password",
        "keystore file kept",
    ),
    row(
        Step::ReverseMigrate,
        "reverse-migrate",
        Scope::HomeGroup,
        Some(Segment::Cutover),
        Reversibility::Migrates,
        "old HSM to software keystore, then redo clean",
        "forward migrate to the old HSM",
    ),
    row(
        Step::Escrow,
        "escrow",
        Scope::Database,
        Some(Segment::Cutover),
        Reversibility::Keeps,
        "keystore files off the host, read back",
        "kept",
    ),
    row(
        Step::SwapProvider,
        "swap-provider",
        Scope::Host,
        Some(Segment::Cutover),
        Reversibility::Restarts,
        "databases down cleanly, old library out, new one in, start as before",
        "former library back, restart",
    ),
    row(
        Step::Migrate,
        "migrate",
        Scope::Database,
        Some(Segment::Cutover),
        Reversibility::Migrates,
        "software keystore to CloudHSM",
        "reverse migrate to the software keystore",
    ),
    row(
        Step::EnableAutoOpen,
        "enable-auto-open",
        Scope::Database,
        Some(Segment::Cutover),
        Reversibility::Migrates,
        "secret, auto-login keystore and `HSM|FILE`",
        "former secret and auto-login keystore",
    ),
    row(
        Step::Prove,
        "prove",
        Scope::Database,
        Some(Segment::Prove),
        Reversibility::Keeps,
        "views agree and rows read in a new session",
        "nothing to undo",
    ),
    row(
        Step::RestartProof,
        "restart-proof",
        Scope::Database,
        Some(Segment::Prove),
        Reversibility::Keeps,
        "clean restart, opens and reads every encrypted tablespace",
        "nothing to undo",
    ),
    row(
        Step::Neutralise,
        "neutralise",
        Scope::Host,
        Some(Segment::Drill),
        Reversibility::Never,
        "nothing of the copied host starts, listens or reaches its production",
        "refused: the host is thrown away",
    ),
    row(
        Step::DrillOpen,
        "drill-open",
        Scope::Database,
        Some(Segment::Drill),
        Reversibility::Never,
        "opens from the restored cluster with the keystore's file moved aside, and reads",
        "refused: the host is thrown away",
    ),
];

impl Step {
    pub fn info(self) -> &'static StepInfo {
        STEPS.iter().find(|row| row.step == self).expect("the table has a row a step: tested")
    }
    pub fn name(self) -> &'static str {
        self.info().name
    }
    pub fn of(segment: Segment) -> impl Iterator<Item = Step> {
        STEPS.iter().filter(move |row| row.segment == Some(segment)).map(|row| row.step)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Segment {
    /// Those of a campaign, in their order.
    pub const ALL: [Segment; 3] = [Segment::Stage, Segment::Cutover, Segment::Prove];

    pub fn name(self) -> &'static str {
        match self {
            Segment::Stage => "stage",
            Segment::Cutover => "cutover",
            Segment::Prove => "prove",
            Segment::Drill => "drill",
        }
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_one_row_and_serialises_as_its_name() {
        for row in &STEPS {
            assert_eq!(STEPS.iter().filter(|r| r.step == row.step).count(), 1);
            assert_eq!(serde_json::to_value(row.step).expect("serialises"), row.name);
            assert_eq!(row.step.info().name, row.name);
        }
    }
}
