use super::{Ssm, max_results, texts};
use crate::ec2::Ec2;
use crate::page::page;
use crate::{ApiError, InstanceId, Millis};
use serde_json::{Value, json};

/// An instance whose agent has registered itself.
#[derive(Debug, Clone)]
pub struct Node {
    pub instance: InstanceId,
    /// Four numbers, compared as numbers.
    pub agent_version: String,
    /// False: the agent does not answer; deliveries wait, and the ping status becomes ConnectionLost.
    pub online: bool,
    /// True: each delivery fails at once as Undeliverable.
    pub undeliverable: bool,
    pub platform_name: String,
    pub platform_version: String,
    pub computer_name: String,
    pub ip: String,
    pub role: String,
    pub registered: Millis,
    pub last_ping: Millis,
}

impl Ssm {
    pub(super) fn describe_instance_information(&self, body: &Value, now: Millis, ec2: &Ec2) -> Result<Value, ApiError> {
        let max = max_results(body, 5, 50)?;
        let filters = body["Filters"].as_array();
        let legacy = body["InstanceInformationFilterList"].as_array();
        if filters.is_some() && legacy.is_some() {
            return Err(ApiError::validation("You can use either Filters or InstanceInformationFilterList, not both"));
        }
        let mut wanted: Vec<(String, Vec<String>)> = Vec::new();
        for filter in filters.into_iter().flatten() {
            wanted.push((filter["Key"].as_str().unwrap_or_default().to_owned(), owned(texts(filter, "Values", 100)?)));
        }
        for filter in legacy.into_iter().flatten() {
            wanted.push((filter["key"].as_str().unwrap_or_default().to_owned(), owned(texts(filter, "valueSet", 100)?)));
        }
        let tagged = wanted.iter().any(|(key, _)| key.starts_with("tag"));
        if tagged && wanted.iter().any(|(key, _)| !key.starts_with("tag")) {
            return Err(ApiError::new(
                "InvalidInstanceInformationFilterValue",
                "Tag filters cannot be combined with other filters",
            ));
        }
        let mut nodes: Vec<&Node> = Vec::new();
        // Stopped and terminated nodes are not returned.
        for node in self.nodes.values().filter(|node| ec2.state(&node.instance) == Some("running")) {
            let mut matches = true;
            for (key, values) in &wanted {
                matches &= node.matches(key, values, ec2)?;
            }
            if matches {
                nodes.push(node);
            }
        }
        for (key, values) in &wanted {
            if key == "InstanceIds"
                && let Some(bad) = values.iter().find(|id| ec2.state(&InstanceId::new(id.as_str())).is_none())
            {
                return Err(ApiError::new("InvalidInstanceId", format!("The instance ID {bad} is not valid")));
            }
        }
        let (rows, next) = page(&nodes, &format!("nodes{wanted:?}"), max, body["NextToken"].as_str(), "InvalidNextToken")?;
        let rows: Vec<Value> = rows.iter().map(|node| node.describe(now)).collect();
        let mut reply = json!({"InstanceInformationList": rows});
        super::put(&mut reply, "NextToken", next.map(Value::from));
        Ok(reply)
    }
}

fn owned(values: Vec<&str>) -> Vec<String> {
    values.into_iter().map(str::to_owned).collect()
}

impl Node {
    fn ping_status(&self) -> &'static str {
        if self.online { "Online" } else { "ConnectionLost" }
    }

    fn matches(&self, key: &str, values: &[String], ec2: &Ec2) -> Result<bool, ApiError> {
        let has = |text: &str| values.iter().any(|value| value == text);
        Ok(match key {
            "InstanceIds" => has(self.instance.as_str()),
            "PingStatus" => has(self.ping_status()),
            "PlatformTypes" => has("Linux"),
            "AgentVersion" => has(&self.agent_version),
            "ResourceType" => has("EC2Instance") || has("ManagedInstance"),
            "IamRole" => has(&self.role),
            "ActivationIds" | "AssociationStatus" | "SourceIds" | "SourceTypes" => false,
            "tag-key" => values.iter().any(|value| ec2.tag(&self.instance, value).is_some()),
            tag => match tag.strip_prefix("tag:") {
                Some(name) => ec2.tag(&self.instance, name).is_some_and(has),
                None => return Err(ApiError::new("InvalidFilterKey", format!("The filter key {tag} is not valid"))),
            },
        })
    }

    fn describe(&self, now: Millis) -> Value {
        let ping = if self.online { now } else { self.last_ping };
        json!({
            "InstanceId": self.instance.as_str(),
            "PingStatus": self.ping_status(),
            "LastPingDateTime": ping.epoch(),
            "AgentVersion": self.agent_version,
            "IsLatestVersion": false,
            "PlatformType": "Linux",
            "PlatformName": self.platform_name,
            "PlatformVersion": self.platform_version,
            "ResourceType": "EC2Instance",
            "IPAddress": self.ip,
            "ComputerName": self.computer_name,
            "SourceId": self.instance.as_str(),
            "SourceType": "AWS::EC2::Instance",
        })
    }
}
