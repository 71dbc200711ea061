//! AWS as the driver sees it. Nothing is decided here: what SSM says is handed on, and whether a failed call may have
//! had an effect.

use crate::ssm::Sending;
use crate::{Aws, CloudError, Effect};
use async_trait::async_trait;
use tde2hsm_campaign::facts::Cluster;
use tde2hsm_campaign::plan::DocumentPin;
use tde2hsm_campaign::reducer::CommandId;
use tde2hsm_driver::{Cloud, Command, Fault, Invocation, SendError};
use tde2hsm_protocol::{ClusterId, OrderToken, Timestamp};

fn fault(error: CloudError) -> Fault {
    Fault { code: error.code, message: error.to_string() }
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
        self.ssm.send(&sending).await.map_err(|error| match error.effect {
            Effect::NotSent | Effect::Refused => SendError::NotSent(fault(error)),
            Effect::Ambiguous => SendError::Ambiguous(fault(error)),
        })
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
}
