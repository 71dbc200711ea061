//! What AWS says of a fleet, gathered once for the rules.

use crate::failure::Failure;
use crate::out::Out;
use std::collections::BTreeSet;
use tde2hsm_campaign::facts::{CloudFacts, DocumentFact, Instance};
use tde2hsm_campaign::fleet::{Fleet, Secrets, Targets};
use tde2hsm_cloud::Aws;
use tde2hsm_document::DocumentSource;
use tde2hsm_protocol::{InstanceId, SecretArn, Timestamp};

/// Instances that the fleet's targets name and EC2 knows, owned by the fleet's account.
pub async fn instances(aws: &Aws, fleet: &Fleet) -> Result<Vec<Instance>, Failure> {
    let mut found: Vec<Instance> = Vec::new();
    for target in &fleet.targets {
        let owned = match target {
            Targets::Tag(tag) => aws.ec2.instances_by_tag(&tag.key, &tag.value).await?,
            Targets::Instances(ids) => aws.ec2.instances_by_id(ids).await?,
        };
        // A shared subnet shows instances of other accounts too.
        let ours = owned.into_iter().filter(|o| o.owner.as_ref().is_none_or(|owner| *owner == fleet.fleet.account));
        found.extend(ours.map(|o| o.instance));
    }
    found.sort_by(|a, b| a.instance.cmp(&b.instance));
    found.dedup_by(|a, b| a.instance == b.instance);
    Ok(found)
}

pub async fn facts(aws: &Aws, fleet: &Fleet, document: &str, now: Timestamp, out: Out) -> Result<CloudFacts, Failure> {
    let instances = instances(aws, fleet).await?;
    let ids: Vec<InstanceId> = instances.iter().map(|i| i.instance.clone()).collect();
    let managed = aws.ssm.managed(&ids).await?;
    let clusters: Vec<_> = aws.cloudhsm.cluster(&fleet.cluster.id).await?.into_iter().collect();
    let mut groups: BTreeSet<String> = instances.iter().flat_map(|i| i.security_groups.iter().cloned()).collect();
    groups.extend(clusters.iter().filter_map(|c| c.security_group.clone()));
    let security_groups = aws.ec2.security_groups(&groups).await?;
    let subnets = instances.iter().filter_map(|i| Some((i.subnet.clone()?, i.vpc.clone()?))).collect();
    let routes = aws.ec2.routes(&subnets).await?;
    let mut secrets = Vec::new();
    for arn in arns(fleet) {
        // A secret of another account or region cannot be asked about here; a rule says so.
        if arn.region() == fleet.fleet.region && arn.account() == fleet.fleet.account {
            secrets.extend(aws.secrets.describe(&arn).await?);
        }
    }
    Ok(CloudFacts {
        account: fleet.fleet.account.clone(),
        region: fleet.fleet.region.clone(),
        gathered_at: now,
        managed,
        instances,
        security_groups,
        routes,
        clusters,
        secrets,
        document: self::document(aws, document, out).await?,
    })
}

/// Every secret that the fleet file names anywhere.
fn arns(fleet: &Fleet) -> BTreeSet<SecretArn> {
    let of = |secrets: &Secrets| {
        [&secrets.old_hsm, &secrets.cloudhsm, &secrets.software]
            .into_iter()
            .flatten()
            .map(|choice| choice.arn.clone())
            .collect::<Vec<_>>()
    };
    let hosts = fleet.hosts.iter().flat_map(|host| {
        host.databases.iter().map(|database| &database.secrets).chain([&host.secrets]).flat_map(of).collect::<Vec<_>>()
    });
    of(&fleet.secrets).into_iter().chain(hosts).collect()
}

/// The document and what it brings; `None` when it is not there or not one of ours.
async fn document(aws: &Aws, name: &str, out: Out) -> Result<Option<DocumentFact>, Failure> {
    let Some(pin) = aws.ssm.document(name).await? else {
        out.warn(&format!("there is no SSM document `{name}`"));
        return Ok(None);
    };
    let text = aws.ssm.document_text(&pin).await?;
    let Some(source) = DocumentSource::of_document(&text) else {
        out.warn(&format!("version {} of the SSM document `{name}` is not one that this program made", pin.version));
        return Ok(None);
    };
    let mut versions: Vec<String> = source.packages.iter().map(|package| package.version.to_string()).collect();
    versions.sort();
    versions.dedup();
    Ok(Some(DocumentFact {
        name: pin.name,
        version: pin.version,
        hash: pin.hash,
        packages: source.packages.iter().map(|package| package.os.to_string()).collect(),
        client_version: versions.pop(),
    }))
}
