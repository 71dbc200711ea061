//! AWS as the driver sees it. Nothing is decided here: what SSM says is handed on, and whether a failed call may have
//! had an effect.

use crate::ssm::Sending;
use crate::{Aws, CloudError, Effect};
use async_trait::async_trait;
use tde2hsm_campaign::facts::{Backup, Cluster};
use tde2hsm_campaign::plan::DocumentPin;
use tde2hsm_campaign::reducer::{CommandId, InventoryTaken};
use tde2hsm_driver::{Backups, Cloud, Command, Fault, Invocation, SendError};
use tde2hsm_protocol::{BackupId, ClusterId, Code, HsmId, InstanceId, OrderToken, Region, Timestamp};

fn fault(error: CloudError) -> Fault {
    Fault { code: error.code, message: error.to_string() }
}

fn not_sent(error: CloudError) -> SendError {
    match error.effect {
        Effect::NotSent | Effect::Refused => SendError::NotSent(fault(error)),
        Effect::Ambiguous => SendError::Ambiguous(fault(error)),
    }
}

#[async_trait]
impl Cloud for Aws {
    async fn send(&self, command: &Command<'_>) -> Result<CommandId, SendError> {
        let sending = Sending {
            document: command.document,
            instances: command.instances,
            order: command.order,
            fetch: command.fetch,
            token: command.token,
            delivery_seconds: command.delivery_seconds,
        };
        self.ssm.send(&sending).await.map_err(not_sent)
    }

    async fn find(&self, document: &DocumentPin, token: &OrderToken, since: Timestamp) -> Result<Vec<CommandId>, Fault> {
        self.ssm.find(document, token, since).await.map_err(fault)
    }

    async fn read(&self, command: &CommandId) -> Result<Vec<Invocation>, Fault> {
        self.ssm.invocations(command).await.map_err(fault)
    }

    async fn cluster(&self, cluster: &ClusterId) -> Result<Option<Cluster>, Fault> {
        self.cloudhsm.cluster(cluster).await.map_err(fault)
    }

    /// Of one region: whoever has a second one asks it.
    async fn backups(&self, cluster: &ClusterId, second: Option<&Region>, after: Timestamp) -> Result<Backups, Fault> {
        if second.is_some() {
            return Err(one_region());
        }
        let found = self.cloudhsm.backups(cluster).await.map_err(fault)?;
        let backups = found.into_iter().filter_map(|backup| {
            let created = backup.created_at.filter(|at| *at > after)?;
            Some(Backup { id: BackupId::new(backup.id).ok()?, state: backup.state, created })
        });
        Ok(Backups { backups: backups.collect(), copies: Vec::new() })
    }

    async fn copy_backups(&self) -> Result<(), Fault> {
        Err(one_region())
    }

    async fn add_hsm(&self, cluster: &ClusterId, zone: &str) -> Result<HsmId, SendError> {
        let hsm = self.cloudhsm.create_hsm(cluster, zone).await.map_err(not_sent)?;
        // An answer without an id is as good as a lost one.
        HsmId::new(hsm.id).map_err(|e| SendError::Ambiguous(Fault { code: Code::AWS_INVALID, message: e.to_string() }))
    }

    async fn remove_hsm(&self, cluster: &ClusterId, hsm: &HsmId) -> Result<(), SendError> {
        self.cloudhsm.delete_hsm(cluster, hsm.as_str()).await.map_err(not_sent)
    }

    async fn take_inventories(&self, hosts: &[InstanceId]) -> Vec<InventoryTaken> {
        let failed = |instance: &InstanceId| InventoryTaken { instance: instance.clone(), failed: Some(one_region().message) };
        hosts.iter().map(failed).collect()
    }

    fn aws_now(&self) -> Option<Timestamp> {
        self.ledger.aws_now().map(Timestamp)
    }
}

fn one_region() -> Fault {
    Fault { code: Code::BACKUP_NOT_COPIED, message: "only one region is connected".to_owned() }
}
