//! AWS as the control plane needs it: one module a service, one error type, every call counted.
//!
//! Two rules make it safe. A call without a client token goes out once, with the SDK's retries off, and its failure
//! says whether it may have had an effect ([`Effect`]): nothing here decides to send again. And no call here can
//! read a secret's value: there is no function for it.

#![forbid(unsafe_code)]

mod bucket;
pub mod cloudhsm;
mod dr;
mod drill;
mod kms;
mod port;
mod records;
pub mod s3;
mod secrets;
mod sns;
pub mod ssm;
mod sts;

pub use bucket::TokenBucket;
pub use cloudhsm::{Backup, CloudHsm};
pub use dr::DrAws;
pub use drill::DrillAws;
pub use kms::Kms;
pub use records::Records;
pub use s3::S3;
pub use secrets::Secrets;
pub use sns::Sns;
pub use ssm::Ssm;
pub use sts::{Caller, Sts};
pub use tde2hsm_cloud_call::{Call, CloudError, Effect, Ledger};
pub use tde2hsm_cloud_ec2::{Ec2, Owned, snapshots};

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::{BehaviorVersion, Region as AwsRegion, SdkConfig};
use tde2hsm_protocol::{Code, Region};

/// All services of one account and region, as one set of credentials sees them.
#[derive(Debug, Clone)]
pub struct Aws {
    pub region: Region,
    pub ssm: Ssm,
    pub ec2: Ec2,
    pub cloudhsm: CloudHsm,
    pub secrets: Secrets,
    pub sts: Sts,
    pub s3: S3,
    pub ledger: Ledger,
}

/// What the command line says of credentials and region; the rest comes from AWS's own environment and files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    pub profile: Option<String>,
    pub region: Option<String>,
}

impl Aws {
    /// Reads AWS's environment and files. Asks the network nothing: credentials are looked for at the first call.
    pub async fn connect(choice: &Choice, default_region: Option<&Region>) -> Result<Aws, CloudError> {
        let config = load(choice, default_region).await;
        let call = Call { service: "config", operation: "Region" };
        let Some(region) = config.region() else {
            let message = "no AWS region is named";
            return Err(CloudError::found(call, Code::AWS_INVALID, message));
        };
        let region = Region::new(region.to_string()).map_err(|e| CloudError::found(call, Code::AWS_INVALID, e.to_string()))?;
        Ok(Aws::with(&config, region))
    }

    /// With a configuration that was made elsewhere.
    pub fn with(config: &SdkConfig, region: Region) -> Aws {
        let ledger = Ledger::default();
        Aws {
            ssm: Ssm::new(config, &ledger),
            ec2: Ec2::new(config, &ledger),
            cloudhsm: CloudHsm::new(config, &ledger),
            secrets: Secrets::new(config, &ledger),
            sts: Sts::new(config, &ledger),
            s3: S3::new(config, &ledger, region.clone()),
            region,
            ledger,
        }
    }
}

async fn load(choice: &Choice, default_region: Option<&Region>) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).timeout_config(tde2hsm_cloud_call::timeouts());
    if let Some(profile) = &choice.profile {
        // Keys in the environment come first by themselves. Those may be of the account that was worked in last; what the
        // command line names is meant.
        let named = ProfileFileCredentialsProvider::builder().profile_name(profile).build();
        loader = loader.profile_name(profile).credentials_provider(named);
    }
    // The command line first, then the file that names the fleet, then AWS's environment.
    if let Some(region) = choice.region.clone().or_else(|| default_region.map(ToString::to_string)) {
        loader = loader.region(AwsRegion::new(region));
    }
    loader.load().await
}
