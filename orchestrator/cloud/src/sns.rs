//! The topic that breaches are told on.

use aws_config::SdkConfig;
use aws_sdk_sns::Client;
use tde2hsm_cloud_call::{Call, CloudError, Ledger, sort, timeouts};

#[derive(Debug, Clone)]
pub struct Sns {
    client: Client,
}

const PUBLISH: Call = Call { service: "sns", operation: "Publish" };
/// SNS takes no longer subject, and none with a character outside of ASCII.
const SUBJECT: usize = 100;

impl Sns {
    pub(crate) fn new(config: &SdkConfig, ledger: &Ledger) -> Sns {
        let config = aws_sdk_sns::config::Builder::from(config).timeout_config(timeouts()).interceptor(ledger.clone()).build();
        Sns { client: Client::from_conf(config) }
    }

    /// May be sent again by the SDK: a message that comes twice is better than one that does not come.
    pub async fn publish(&self, topic: &str, subject: &str, message: &str) -> Result<(), CloudError> {
        let publish = self.client.publish().topic_arn(topic).subject(fit(subject)).message(message);
        publish.send().await.map(drop).map_err(|e| sort(PUBLISH, e))
    }
}

fn fit(subject: &str) -> String {
    subject.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).take(SUBJECT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_one_short_line_of_ascii() {
        assert_eq!(fit("RPO\nbreached: größer"), "RPO?breached: gr??er");
        assert_eq!(fit(&"x".repeat(300)).len(), SUBJECT);
    }
}
