//! Whose credentials these are.

use aws_config::SdkConfig;
use aws_sdk_sts::Client;
use tde2hsm_cloud_call::{Call, CloudError, Ledger, sort, timeouts};
use tde2hsm_protocol::{AccountId, Code};

const CALLER: Call = Call { service: "sts", operation: "GetCallerIdentity" };

#[derive(Debug, Clone)]
pub struct Sts {
    client: Client,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub account: AccountId,
    pub arn: String,
}

impl Sts {
    pub(crate) fn new(config: &SdkConfig, ledger: &Ledger) -> Sts {
        let config = aws_sdk_sts::config::Builder::from(config).timeout_config(timeouts()).interceptor(ledger.clone()).build();
        Sts { client: Client::from_conf(config) }
    }

    pub async fn caller(&self) -> Result<Caller, CloudError> {
        let answer = self.client.get_caller_identity().send().await.map_err(|e| sort(CALLER, e))?;
        let account = AccountId::new(answer.account().unwrap_or_default())
            .map_err(|e| CloudError::found(CALLER, Code::AWS_INVALID, e.to_string()))?;
        Ok(Caller { account, arn: answer.arn().unwrap_or_default().to_owned() })
    }
}
