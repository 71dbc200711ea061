use crate::cloudhsm::{self, CloudHsm};
use crate::ec2::{Ec2, Snapshots, Verdict};
use crate::faults::{self, CallFault, Fate, Faults};
use crate::kms::Kms;
use crate::secrets::Secrets;
use crate::sns::Sns;
use crate::ssm::{Ssm, StepOutcome};
use crate::{AccountId, ApiError, CommandId, Ids, InstanceId, Millis, Region};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The services of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    Ssm,
    Ec2,
    CloudHsm,
    Secrets,
    Sts,
    S3,
    Kms,
    Sns,
}

impl Service {
    pub const ALL: [Self; 8] = [Self::Ssm, Self::Ec2, Self::CloudHsm, Self::Secrets, Self::Sts, Self::S3, Self::Kms, Self::Sns];

    /// The prefix of IAM actions, and the name in a signature's scope.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Ssm => "ssm",
            Self::Ec2 => "ec2",
            Self::CloudHsm => "cloudhsm",
            Self::Secrets => "secretsmanager",
            Self::Sts => "sts",
            Self::S3 => "s3",
            Self::Kms => "kms",
            Self::Sns => "sns",
        }
    }

    pub fn from_prefix(prefix: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.prefix() == prefix)
    }
}

/// Whose key signed a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    Operator,
    /// The role of a host, whose credentials came from its instance metadata.
    Host(InstanceId),
    /// The role of a function, by the function's name; what it may call is said with [`World::grant`].
    Function(String),
}

#[derive(Debug, Clone)]
pub struct Caller {
    pub principal: Principal,
    pub arn: String,
    pub user_id: String,
}

#[derive(Debug, Clone)]
pub struct Request<'a> {
    pub caller: &'a Caller,
    pub region: &'a Region,
    pub service: Service,
    pub operation: &'a str,
    /// Members of the request; for EC2 and STS a flat map of its query parameters.
    pub body: &'a Value,
}

#[derive(Debug, Clone)]
pub struct Reply {
    pub result: Result<Value, ApiError>,
    pub fate: Fate,
}

/// What has to happen outside the model.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// The agent of `instance` receives a command. It may be the second time, and it may be late (H31).
    Deliver {
        region: Region,
        instance: InstanceId,
        command: CommandId,
        document_name: String,
        document: Value,
        /// Parameters with the document's defaults filled in.
        parameters: BTreeMap<String, Value>,
    },
    /// The agent of `instance` is asked to cancel.
    Cancel {
        region: Region,
        instance: InstanceId,
        command: CommandId,
    },
    /// The HSMs of a cluster are others than before.
    HsmsChanged {
        region: Region,
        cluster: String,
    },
    /// The content of a volume is frozen, now. `instance`: what the volume was attached to.
    SnapshotTaken {
        region: Region,
        snapshot: String,
        instance: Option<InstanceId>,
        volume: String,
    },
    /// A copy is complete: it holds what the source holds.
    SnapshotCopied {
        from: Region,
        source: String,
        region: Region,
        snapshot: String,
    },
    /// Deleted, or it disappeared by itself after an error.
    SnapshotDeleted {
        region: Region,
        snapshot: String,
    },
    /// Keys and users of a cluster are frozen, now, though the backup becomes READY later.
    BackupTaken {
        region: Region,
        cluster: String,
        backup: String,
    },
    /// A copy is READY.
    BackupCopied {
        from: Region,
        source: String,
        region: Region,
        backup: String,
    },
    /// Gone for good: seven days after its deletion, or a copy that failed.
    BackupGone {
        region: Region,
        backup: String,
    },
    /// A cluster made from a backup is ACTIVE, without any HSM yet.
    ClusterRestored {
        region: Region,
        cluster: String,
        backup: String,
    },
    ClusterGone {
        region: Region,
        cluster: String,
    },
    /// An instance made by RunInstances is running.
    InstanceLaunched {
        region: Region,
        instance: InstanceId,
        image: String,
        volumes: Vec<LaunchedVolume>,
    },
    /// An instance is shutting down for good.
    InstanceTerminated {
        region: Region,
        instance: InstanceId,
    },
    /// An event as EventBridge gives it to a target: the whole envelope (A§2.3).
    Event {
        region: Region,
        detail: Value,
    },
}

/// A volume that RunInstances made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchedVolume {
    pub device: String,
    pub volume: String,
    /// Empty where it was made of no snapshot.
    pub snapshot: String,
}

/// How fast the world is. All times are milliseconds.
#[derive(Debug, Clone)]
pub struct WorldOptions {
    /// How long after SendCommand a command may stay invisible, at most (A§1.2).
    pub visibility_lag_ms: i64,
    /// From SendCommand to the agent, at most.
    pub delivery_ms: i64,
    /// How long a document stays in `Creating`.
    pub document_lag_ms: i64,
    /// From CreateHsm to ACTIVE, from DeleteHsm to gone.
    pub hsm_ms: i64,
    /// From the start of a backup or copy to READY.
    pub backup_ms: i64,
    /// How often a cluster backs itself up; 24 hours on AWS (A§4.5).
    pub backup_every_ms: i64,
    /// From CreateCluster to ACTIVE, from DeleteCluster to gone.
    pub cluster_ms: i64,
    /// Whether CopyBackupToRegion of a backup that was copied already makes a second copy or is refused. Not documented
    /// (A§4.4): a product must be safe either way.
    pub duplicate_backup_copies: bool,
    /// From CreateSnapshot(s) to completed.
    pub snapshot_ms: i64,
    /// How long a new snapshot may stay unknown to DescribeSnapshots, at most (A§3.4).
    pub snapshot_lag_ms: i64,
    /// How far apart two snapshots of one volume must lie; 15 seconds on AWS (A§3.3), nothing here.
    pub snapshot_spacing_ms: i64,
    /// From CopySnapshot to completed: this, and so much for each GiB that has to move.
    pub copy_ms: i64,
    pub copy_ms_per_gib: i64,
    /// After how long EBS finds out that a key cannot be used (A§3.2).
    pub key_check_ms: i64,
    /// How long a copy whose source is not there stays pending.
    pub wrong_source_ms: i64,
    /// After how long a copy in error disappears by itself, where it does.
    pub failed_copy_vanishes_ms: Option<i64>,
    /// Copies in flight into one region; 20 on AWS (A§3.3).
    pub copies_in_flight: usize,
    /// The refusal of a time-based copy when no throughput is left. Not documented (A§3.2).
    pub throughput_code: &'static str,
    /// From RunInstances to running, from TerminateInstances to terminated.
    pub instance_ms: i64,
    /// How long a secret's version without any stage stays readable (H42).
    pub bare_version_ms: i64,
}

impl Default for WorldOptions {
    fn default() -> Self {
        Self {
            visibility_lag_ms: 400,
            delivery_ms: 60,
            document_lag_ms: 150,
            hsm_ms: 1_500,
            backup_ms: 800,
            backup_every_ms: 86_400_000,
            cluster_ms: 1_000,
            duplicate_backup_copies: true,
            snapshot_ms: 500,
            snapshot_lag_ms: 200,
            snapshot_spacing_ms: 0,
            copy_ms: 1_000,
            copy_ms_per_gib: 10,
            key_check_ms: 600,
            wrong_source_ms: 5_000,
            failed_copy_vanishes_ms: None,
            copies_in_flight: 20,
            throughput_code: "SnapshotCopyThroughputExceeded",
            instance_ms: 1_000,
            bare_version_ms: 86_400_000,
        }
    }
}

#[derive(Debug)]
pub struct RegionState {
    pub ssm: Ssm,
    pub ec2: Ec2,
    pub hsm: CloudHsm,
    pub secrets: Secrets,
    pub kms: Kms,
    pub sns: Sns,
}

/// What one step of the world may use and leave behind.
pub(crate) struct Turn<'a> {
    pub(crate) now: Millis,
    pub(crate) ids: &'a mut Ids,
    pub(crate) options: &'a WorldOptions,
    pub(crate) faults: &'a mut Faults,
    pub(crate) effects: &'a mut Vec<Effect>,
    /// Events that happened, before any fault of their delivery.
    pub(crate) events: &'a mut Vec<(Region, Value)>,
}

/// One account.
#[derive(Debug)]
pub struct World {
    pub account: AccountId,
    pub ids: Ids,
    pub faults: Faults,
    pub options: WorldOptions,
    regions: BTreeMap<Region, RegionState>,
    effects: Vec<Effect>,
    /// Events that happened and have not been sent on their way.
    happened: Vec<(Region, Value)>,
    /// Events on their way: when they arrive, in order of happening.
    events: Vec<(Millis, Region, Value)>,
    calls: BTreeMap<(Kind, String), u64>,
    grants: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Operator,
    Hosts,
    Function(String),
}

/// Operations a host's role may use: what docs/permissions.md grants it.
const HOST_ROLE: &[(Service, &[&str])] = &[
    (Service::Secrets, &["GetSecretValue", "CreateSecret", "PutSecretValue", "ReplicateSecretToRegions"]),
    (Service::S3, &["GetObject", "HeadObject"]),
    (Service::Sts, &["GetCallerIdentity"]),
];

impl World {
    pub fn new(account: AccountId, regions: &[Region], seed: u64, options: WorldOptions) -> Self {
        let regions = regions
            .iter()
            .map(|region| {
                let state = RegionState {
                    ssm: Ssm::new(&account, region),
                    ec2: Ec2::new(&account, region),
                    hsm: CloudHsm::new(&account, region),
                    secrets: Secrets::new(&account, region),
                    kms: Kms::new(&account, region),
                    sns: Sns::new(&account, region),
                };
                (region.clone(), state)
            })
            .collect();
        Self {
            account,
            ids: Ids::new(seed),
            faults: Faults::default(),
            options,
            regions,
            effects: Vec::new(),
            happened: Vec::new(),
            events: Vec::new(),
            calls: BTreeMap::new(),
            grants: BTreeMap::new(),
        }
    }

    pub fn regions(&self) -> impl Iterator<Item = &Region> {
        self.regions.keys()
    }

    pub fn region(&self, region: &Region) -> Option<&RegionState> {
        self.regions.get(region)
    }

    pub fn region_mut(&mut self, region: &Region) -> Option<&mut RegionState> {
        self.regions.get_mut(region)
    }

    /// How often the operator (`false`: the hosts) called each operation, by `service:Operation`.
    pub fn calls(&self, of_operator: bool) -> BTreeMap<String, u64> {
        self.calls_of(&if of_operator { Kind::Operator } else { Kind::Hosts })
    }

    /// How often a function called each operation.
    pub fn function_calls(&self, name: &str) -> BTreeMap<String, u64> {
        self.calls_of(&Kind::Function(name.to_owned()))
    }

    fn calls_of(&self, kind: &Kind) -> BTreeMap<String, u64> {
        self.calls.iter().filter(|((by, _), _)| by == kind).map(|((_, name), n)| (name.clone(), *n)).collect()
    }

    /// Says what a function's role may call: IAM action patterns such as `ec2:CopySnapshot` or `ec2:Describe*`. What is
    /// not named here is refused.
    pub fn grant(&mut self, function: &str, actions: Vec<String>) {
        self.grants.insert(function.to_owned(), actions);
    }

    fn may(&self, principal: &Principal, service: Service, operation: &str) -> bool {
        match principal {
            Principal::Operator => true,
            Principal::Host(_) => HOST_ROLE.iter().any(|(s, ops)| *s == service && ops.contains(&operation)),
            Principal::Function(name) => {
                let action = format!("{}:{}", service.prefix(), iam_action(service, operation, false));
                self.grants.get(name).is_some_and(|have| have.iter().any(|pattern| crate::ec2::wildcard(pattern, &action)))
            }
        }
    }

    /// Counts a call and says whether it goes ahead, and what becomes of its reply. S3 asks here too, though its
    /// storage lies outside the model. `None` in the error: the connection dies without a word.
    pub fn admit(&mut self, caller: &Caller, service: Service, operation: &str) -> Result<Fate, Option<ApiError>> {
        let kind = match &caller.principal {
            Principal::Operator => Kind::Operator,
            Principal::Host(_) => Kind::Hosts,
            Principal::Function(name) => Kind::Function(name.clone()),
        };
        *self.calls.entry((kind, format!("{}:{operation}", service.prefix()))).or_default() += 1;
        let fate = match self.faults.take(service, operation) {
            None => Fate::Delivered,
            Some(CallFault::LoseReply) => Fate::Lost,
            Some(CallFault::LoseRequest) => return Err(None),
            Some(CallFault::Throttle) => return Err(Some(faults::throttled(service))),
            Some(CallFault::ServerError) => return Err(Some(faults::server_error(service))),
            Some(CallFault::Deny) => return Err(Some(faults::denied(service, &caller.arn, operation))),
        };
        if self.may(&caller.principal, service, operation) {
            Ok(fate)
        } else {
            Err(Some(faults::denied(service, &caller.arn, operation)))
        }
    }

    /// Answers one call. An operation the model does not know is refused by its name.
    pub fn call(&mut self, request: &Request<'_>, now: Millis) -> Reply {
        let fate = match self.admit(request.caller, request.service, request.operation) {
            Ok(fate) => fate,
            Err(None) => return Reply { result: Ok(Value::Null), fate: Fate::Lost },
            Err(Some(error)) => return Reply { result: Err(error), fate: Fate::Delivered },
        };
        let result = self.dispatch(request, now);
        self.tick(now);
        Reply { result, fate }
    }

    fn dispatch(&mut self, request: &Request<'_>, now: Millis) -> Result<Value, ApiError> {
        let Request { caller, region, service, operation, body } = *request;
        if service == Service::Sts {
            return match operation {
                "GetCallerIdentity" => Ok(json!({"UserId": caller.user_id, "Account": self.account.as_str(), "Arn": caller.arn})),
                other => Err(unknown(Service::Sts, other)),
            };
        }
        if service == Service::Secrets && operation == "CreateSecret" {
            return self.create_secret(region, body, now);
        }
        if service == Service::CloudHsm && operation == "CopyBackupToRegion" {
            return self.copy_backup(region, body, now);
        }
        if service == Service::Ec2 && operation == "CopySnapshot" {
            return self.copy_snapshot(region, body, now);
        }
        let (regions, mut turn) = self.turn(now);
        let Some(state) = regions.get_mut(region) else { return Err(no_region(region)) };
        match service {
            Service::Ssm => state.ssm.call(operation, body, now, turn.ids, turn.options, &state.ec2),
            Service::Ec2 => state.ec2.call(operation, body, &state.kms, &mut turn),
            Service::CloudHsm => {
                let (value, changed) = state.hsm.call(operation, body, &mut state.ec2, &mut turn)?;
                turn.effects.extend(changed.map(|cluster| Effect::HsmsChanged { region: region.clone(), cluster }));
                Ok(value)
            }
            Service::Secrets => {
                if operation == "GetSecretValue"
                    && let Some(key) = state.secrets.key(body["SecretId"].as_str().unwrap_or_default())
                    && !state.kms.usable(key)
                {
                    let why = "Secrets Manager can't decrypt the protected secret text using the provided KMS key.";
                    return Err(ApiError::new("DecryptionFailure", why));
                }
                let value = state.secrets.call(operation, body, now, turn.ids)?;
                if matches!(operation, "PutSecretValue" | "ReplicateSecretToRegions" | "UpdateSecretVersionStage" | "TagResource")
                    && let Some(name) = state.secrets.name(body["SecretId"].as_str().unwrap_or_default())
                {
                    self.replicate(region, &name);
                }
                Ok(value)
            }
            Service::Kms => state.kms.call(operation, body),
            Service::Sns => state.sns.call(operation, body, &mut turn),
            Service::Sts | Service::S3 => Err(unknown(service, operation)),
        }
    }

    /// The regions, and what one step of any of them may use and leave behind.
    fn turn(&mut self, now: Millis) -> (&mut BTreeMap<Region, RegionState>, Turn<'_>) {
        let Self { regions, ids, options, faults, effects, happened, .. } = self;
        (regions, Turn { now, ids, options, faults, effects, events: happened })
    }

    /// Called in the destination; what it copies lies in `SourceRegion`.
    fn copy_snapshot(&mut self, region: &Region, body: &Value, now: Millis) -> Result<Value, ApiError> {
        let from = Region::new(body["SourceRegion"].as_str().unwrap_or_default());
        let Some(source) = self.regions.get(&from) else {
            return Err(ApiError::new("InvalidParameterValue", format!("Invalid region name {from}")));
        };
        let source = source.ec2.snapshots.get(body["SourceSnapshotId"].as_str().unwrap_or_default()).cloned();
        let (regions, mut turn) = self.turn(now);
        let Some(state) = regions.get_mut(region) else { return Err(no_region(region)) };
        // A key that is not there is kept as it was written: EBS finds out later.
        let key = body["KmsKeyId"].as_str().map(|key| state.kms.resolve(key).unwrap_or_else(|| key.to_owned()));
        state.ec2.snapshots.copy(&from, source.as_ref(), body, key, &mut turn)
    }

    /// CreateSecret, and the same secret in each region of `AddReplicaRegions`.
    fn create_secret(&mut self, region: &Region, body: &Value, now: Millis) -> Result<Value, ApiError> {
        let known: Vec<Region> = self.regions.keys().cloned().collect();
        let Some(state) = self.regions.get_mut(region) else { return Err(no_region(region)) };
        let (value, replicas) = state.secrets.create(body, now, &mut self.ids, &known)?;
        for (target, copy) in replicas {
            if let Some(other) = self.regions.get_mut(&target) {
                other.secrets.adopt(copy);
            }
        }
        Ok(value)
    }

    /// Makes a secret as its owner would have, long before anyone calls, and returns its ARN.
    pub fn add_secret(&mut self, region: &Region, name: &str, value: &str, now: Millis) -> Result<String, ApiError> {
        let reply = self.create_secret(region, &json!({"Name": name, "SecretString": value}), now)?;
        Ok(reply["ARN"].as_str().unwrap_or_default().to_owned())
    }

    /// A new version of a secret, as someone who rotates it would make; in its replicas too.
    pub fn rotate_secret(&mut self, region: &Region, name: &str, value: &str, now: Millis) -> Result<String, ApiError> {
        let Some(state) = self.regions.get_mut(region) else {
            return Err(ApiError::new("ResourceNotFoundException", "there is no such region"));
        };
        let version = state.secrets.rotate(name, value, now, &mut self.ids)?;
        self.replicate(region, name);
        Ok(version)
    }

    /// Somebody takes every label off a secret's versions, and those that AWS does not label itself are removed; in its
    /// replicas too (H42).
    pub fn lose_secret_versions(&mut self, region: &Region, name: &str) -> Result<Vec<String>, ApiError> {
        let Some(state) = self.regions.get_mut(region) else { return Err(no_region(region)) };
        let gone = state.secrets.lose_versions(name)?;
        self.replicate(region, name);
        Ok(gone)
    }

    fn replicate(&mut self, region: &Region, name: &str) {
        let copies = self.regions.get(region).map(|state| state.secrets.replicas(name)).unwrap_or_default();
        for (target, copy) in copies {
            if let Some(other) = self.regions.get_mut(&target) {
                other.secrets.adopt(copy);
            }
        }
    }

    fn copy_backup(&mut self, region: &Region, body: &Value, now: Millis) -> Result<Value, ApiError> {
        let target = Region::new(body["DestinationRegion"].as_str().unwrap_or_default());
        if !self.regions.contains_key(&target) || target == *region {
            return Err(cloudhsm::invalid(format!("Invalid destination region {target}")));
        }
        let id = body["BackupId"].as_str().unwrap_or_default();
        let source = self.regions.get(region).and_then(|state| state.hsm.backup(id)).cloned();
        let source = source.ok_or_else(|| cloudhsm::not_found(format!("Backup {id} was not found")))?;
        let (regions, mut turn) = self.turn(now);
        let Some(state) = regions.get_mut(&target) else { return Err(cloudhsm::invalid("Invalid destination region")) };
        state.hsm.adopt_copy(region, &source, body, &mut turn)
    }

    /// Lets time pass: deliveries that are due, time-outs, HSMs, backups, snapshots, copies and instances that became ready.
    /// True while something is under way that the next moment may change.
    pub fn tick(&mut self, now: Millis) -> bool {
        let mut busy = false;
        let verdicts = self.judge_snapshots(now);
        let copies = self.judge_backup_copies(now);
        let (regions, mut turn) = self.turn(now);
        for (region, state) in regions {
            let turn = &mut turn;
            let sent = state.ssm.tick(now, turn.ids, turn.options, turn.faults, &state.ec2);
            turn.effects.extend(sent.into_iter().map(|delivery| delivery.into_effect(region)));
            for (_, id, verdict) in verdicts.iter().filter(|(at, _, _)| at == region) {
                state.ec2.snapshots.settle(id, verdict, turn);
            }
            state.ec2.snapshots.vanish(turn);
            state.ec2.tick(turn);
            for (_, id, readable) in copies.iter().filter(|(at, _, _)| at == region) {
                state.hsm.settle_copy(id, *readable, turn);
            }
            for cluster in state.hsm.tick(turn) {
                turn.effects.push(Effect::HsmsChanged { region: region.clone(), cluster });
            }
            state.secrets.tick(now, turn.options.bare_version_ms);
            busy |= state.ssm.is_busy() || state.hsm.is_busy() || state.ec2.is_busy() || state.ec2.snapshots.is_busy();
        }
        for (region, event) in std::mem::take(&mut self.happened) {
            for late in self.faults.deliveries() {
                self.events.push((now.plus_ms(late), region.clone(), event.clone()));
            }
        }
        for (_, region, detail) in self.events.extract_if(.., |(at, _, _)| *at <= now) {
            self.effects.push(Effect::Event { region, detail });
        }
        busy || !self.events.is_empty()
    }

    /// What becomes of the snapshots whose time has come: region, snapshot, verdict. EBS looks at keys late, and again at
    /// the end; a copy whose source is gone by then fails.
    fn judge_snapshots(&self, now: Millis) -> Vec<(Region, String, Verdict)> {
        let mut verdicts = Vec::new();
        for (region, state) in self.regions.iter().filter(|(_, state)| state.ec2.snapshots.is_due(now)) {
            for snapshot in state.ec2.snapshots.to_judge(now) {
                let due = snapshot.is_due(now);
                let usable = |key: &Option<String>, of: &RegionState| key.as_ref().is_none_or(|key| of.kms.usable(key));
                let verdict = match &snapshot.origin {
                    None => Snapshots::doom(&snapshot, now).map_or(Verdict::Done, Verdict::Fails),
                    Some(origin) => {
                        let there = self.regions.get(&origin.region);
                        let source = there.and_then(|state| state.ec2.snapshots.get(&origin.snapshot));
                        let keys = usable(&snapshot.kms_key, state)
                            && source.zip(there).is_none_or(|(source, there)| usable(&source.kms_key, there));
                        match (source, Snapshots::doom(&snapshot, now)) {
                            _ if !keys => Verdict::Fails("Given key ID is not accessible"),
                            (None, _) if due => Verdict::Fails("Source snapshot ID is not valid"),
                            (_, Some(why)) => Verdict::Fails(why),
                            _ if due => Verdict::Done,
                            _ => Verdict::Waits,
                        }
                    }
                };
                verdicts.push((region.clone(), snapshot.id, verdict));
            }
        }
        verdicts
    }

    /// The backup copies whose time has come: region, copy, whether its source can still be read.
    fn judge_backup_copies(&self, now: Millis) -> Vec<(Region, String, bool)> {
        let mut found = Vec::new();
        for (region, state) in &self.regions {
            for (id, from, source) in state.hsm.copies_due(now) {
                let readable = self.regions.get(&from).is_some_and(|state| state.hsm.is_ready(&source));
                found.push((region.clone(), id, readable));
            }
        }
        found
    }

    /// When something of its own accord happens next, commands on hosts aside.
    pub fn next_due(&self) -> Option<Millis> {
        let states = self.regions.values().flat_map(|state| {
            [
                state.ec2.snapshots.next_due(),
                state.ec2.next_change(),
                state.hsm.next_due(self.options.backup_every_ms),
                state.secrets.next_due(self.options.bare_version_ms),
            ]
        });
        states.flatten().chain(self.events.iter().map(|(at, _, _)| *at)).min()
    }

    /// The agent says that it has begun.
    pub fn agent_started(&mut self, region: &Region, command: &CommandId, instance: &InstanceId) {
        if let Some(state) = self.regions.get_mut(region) {
            state.ssm.agent_started(command, instance);
        }
    }

    /// The agent says how far it is.
    pub fn agent_progress(&mut self, region: &Region, command: &CommandId, instance: &InstanceId, steps: Vec<StepOutcome>) {
        if let Some(state) = self.regions.get_mut(region) {
            state.ssm.agent_progress(command, instance, steps);
        }
    }

    /// The agent's terminal reply, unless a fault loses it.
    pub fn agent_finished(&mut self, region: &Region, command: &CommandId, instance: &InstanceId, steps: Vec<StepOutcome>) {
        if let Some(state) = self.regions.get_mut(region) {
            state.ssm.agent_finished(command, instance, steps, &mut self.faults);
        }
    }

    /// Whether the agent of an instance can be heard.
    pub fn agent_online(&self, region: &Region, instance: &InstanceId) -> bool {
        self.regions.get(region).and_then(|state| state.ssm.node(instance)).is_some_and(|node| node.online)
    }

    /// The effects since the last call, oldest first.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }
}

fn no_region(region: &Region) -> ApiError {
    ApiError::new("UnrecognizedClientException", format!("The region {region} is not part of this world"))
}

/// The IAM action of an operation, where the two have different names. `version`: S3 is asked for a version by its id.
pub fn iam_action(service: Service, operation: &str, version: bool) -> &str {
    match (service, operation) {
        (Service::S3, "ListObjectsV2" | "ListObjects" | "HeadBucket") => "ListBucket",
        (Service::S3, "ListObjectVersions") => "ListBucketVersions",
        (Service::S3, "GetObject" | "HeadObject") if version => "GetObjectVersion",
        (Service::S3, "HeadObject") => "GetObject",
        (Service::S3, "DeleteObject") if version => "DeleteObjectVersion",
        _ => operation,
    }
}

pub(crate) fn unknown(service: Service, operation: &str) -> ApiError {
    match service {
        Service::Ec2 | Service::Sts | Service::Sns => {
            ApiError::new("InvalidAction", format!("The action {operation} is not valid for this web service."))
        }
        Service::S3 => ApiError::new("NotImplemented", format!("{operation} is not implemented")).with_status(501),
        Service::Ssm | Service::CloudHsm | Service::Secrets | Service::Kms => {
            ApiError::new("UnknownOperationException", format!("The operation {operation} is not known"))
        }
    }
}
