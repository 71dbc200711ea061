//! AWS as the driver sees it. Nothing is decided here: what SSM says is handed on, and whether a failed call may have
//! had an effect.

use crate::ssm::Sending;
use crate::{Aws, CloudError, Effect, ssm};
use async_trait::async_trait;
use tde2hsm_campaign::facts::Cluster;
use tde2hsm_campaign::plan::DocumentPin;
use tde2hsm_campaign::reducer::{CommandId, Fetch};
use tde2hsm_driver::{Cloud, Command, Fault, Invocation, SendError, Stage};
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
            fetch: match command.fetch {
                Fetch::Runner => tde2hsm_document::Fetch::Runner,
                Fetch::Client => tde2hsm_document::Fetch::Client,
            },
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
        let found = self.ssm.invocations(command).await.map_err(fault)?;
        let invocations = found.into_iter().map(|found| Invocation {
            instance: found.instance,
            stage: match found.stage {
                ssm::Stage::Open => Stage::Open,
                ssm::Stage::Over => Stage::Over,
            },
            details: found.details,
            output: found.output,
        });
        Ok(invocations.collect())
    }

    async fn cluster(&self, cluster: &ClusterId) -> Result<Option<Cluster>, Fault> {
        self.cloudhsm.cluster(cluster).await.map_err(fault)
    }
}
