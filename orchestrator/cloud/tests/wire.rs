//! What really goes over the wire when a connection breaks, on the real SDK against a socket of this process.

mod common;

use common::{Log, Then, serve};
use tde2hsm_campaign::plan::DocumentPin;
use tde2hsm_cloud::ssm::{Sending, Stage};
use tde2hsm_cloud::{Aws, Effect};
use tde2hsm_document::Fetch;
use tde2hsm_protocol::{Code, Digest, InstanceId, OrderToken, Region, Timestamp};

struct Server {
    aws: Aws,
    log: Log,
}

impl Server {
    fn new(script: Vec<Then>) -> Server {
        let headers = |_| "content-type: application/x-amz-json-1.1\r\nx-amzn-requestid: r-1\r\n".to_owned();
        let (config, log) = serve(script, "us-east-1", headers);
        Server { aws: Aws::with(&config, Region::new("us-east-1").unwrap()), log }
    }

    fn targets(&self) -> Vec<String> {
        self.log.seen().iter().map(common::Seen::target).collect()
    }
}

fn pin() -> DocumentPin {
    DocumentPin { name: "tde2hsm-run".to_owned(), version: "3".to_owned(), hash: Digest::of(b"document") }
}

async fn send(server: &Server) -> Result<(), tde2hsm_cloud::CloudError> {
    let instances = [InstanceId::new("i-0123456789abcdef0").unwrap()];
    let token = OrderToken::new("t-1").unwrap();
    let document = pin();
    let sending = Sending {
        document: &document,
        instances: &instances,
        order: "abc",
        fetch: Fetch::Client,
        token: &token,
        delivery_seconds: 3_600,
    };
    server.aws.ssm.send(&sending).await.map(drop)
}

const SENT: &str = r#"{"Command":{"CommandId":"e8d3b1c2-0000-4000-8000-0123456789ab"}}"#;

#[tokio::test]
async fn send_command_goes_out_once_however_its_connection_ends() {
    let server = Server::new(vec![Then::Drop]);
    let error = send(&server).await.unwrap_err();
    assert_eq!((error.effect, error.code), (Effect::Ambiguous, Code::AWS_UNREACHABLE), "{error}");
    assert_eq!(server.targets(), ["AmazonSSM.SendCommand"]);

    let server = Server::new(vec![Then::Answer(500, r#"{"__type":"InternalServerError"}"#.to_owned())]);
    assert_eq!(send(&server).await.unwrap_err().effect, Effect::Ambiguous);
    assert_eq!(server.targets().len(), 1);

    let throttled = r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#;
    let server = Server::new(vec![Then::Answer(400, throttled.to_owned())]);
    let error = send(&server).await.unwrap_err();
    assert_eq!((error.effect, error.code), (Effect::Refused, Code::AWS_THROTTLED));
    assert_eq!(server.targets().len(), 1);
    assert_eq!(server.aws.ledger.counts()["ssm:SendCommand"], 1);
}

#[tokio::test]
async fn what_only_reads_is_tried_again_and_each_try_is_counted() {
    let empty = Then::Answer(200, r#"{"Commands":[]}"#.to_owned());
    let server = Server::new(vec![Then::Drop, Then::Drop, empty]);
    let found = server.aws.ssm.find(&pin(), &OrderToken::new("t-1").unwrap(), Timestamp(1_795_600_000)).await.unwrap();
    assert!(found.is_empty());
    assert_eq!(server.targets(), ["AmazonSSM.ListCommands"; 3]);
    assert_eq!(server.aws.ledger.counts()["ssm:ListCommands"], 3);
    let filters = server.log.seen()[0].json()["Filters"].clone();
    assert_eq!(filters[0], serde_json::json!({"key": "InvokedAfter", "value": "2026-11-25T09:46:40Z"}));
    assert_eq!(filters[1], serde_json::json!({"key": "DocumentName", "value": "tde2hsm-run"}));
}

#[tokio::test]
async fn h34_a_command_pins_the_document_and_carries_its_token() {
    let server = Server::new(vec![Then::Answer(200, SENT.to_owned())]);
    send(&server).await.unwrap();
    let body = server.log.seen()[0].json();
    assert_eq!(body["DocumentName"], "tde2hsm-run");
    assert_eq!(body["DocumentVersion"], "3");
    assert_eq!(body["DocumentHash"], Digest::of(b"document").to_string());
    assert_eq!(body["DocumentHashType"], "Sha256");
    assert_eq!(body["Comment"], "t-1");
    assert_eq!(body["Parameters"], serde_json::json!({"Order": ["abc"], "Fetch": ["client"]}));
    assert_eq!(body["InstanceIds"], serde_json::json!(["i-0123456789abcdef0"]));
    assert_eq!(body["MaxErrors"], "100%", "one host's failure does not keep the order from another");
}

#[tokio::test]
async fn results_are_read_page_by_page_with_details() {
    let invocation = |id: &str, details: &str, output: &str| {
        format!(
            r#"{{"InstanceId":"{id}","Status":"InProgress","StatusDetails":"{details}","CommandPlugins":[
                {{"Name":"fetchRunner","Output":"not this"}},{{"Name":"runOrder","Output":"{output}"}}]}}"#
        )
    };
    let first = invocation("i-0123456789abcdef0", "Success", "TDE2HSM/1 done");
    let second = invocation("i-0123456789abcdef1", "In Progress", "half a li");
    let stranger = invocation("i-nonsense", "Success", "x");
    let server = Server::new(vec![
        Then::Answer(200, format!(r#"{{"CommandInvocations":[{first},{stranger}],"NextToken":"more"}}"#)),
        Then::Answer(200, format!(r#"{{"CommandInvocations":[{second}]}}"#)),
    ]);
    let id = tde2hsm_campaign::reducer::CommandId::new("e8d3b1c2-0000-4000-8000-0123456789ab").unwrap();
    let found = server.aws.ssm.invocations(&id).await.unwrap();
    assert_eq!(found.len(), 2, "H36: an id that is none is left out");
    assert_eq!((found[0].stage, found[0].output.as_deref()), (Stage::Over, Some("TDE2HSM/1 done")));
    assert_eq!((found[1].stage, found[1].output.as_deref()), (Stage::Open, None), "a line that may still grow is not read");
    let seen = server.log.seen();
    assert_eq!(seen[0].json()["Details"], true);
    assert_eq!(seen[1].json()["NextToken"], "more");
}

/// A secret's value has no way into this program: DescribeSecret is all it ever asks.
#[tokio::test]
async fn h13_versions_are_read_without_a_value() {
    let body = r#"{"ARN":"x","VersionIdsToStages":{
        "11111111-1111-1111-1111-111111111111":["AWSPREVIOUS"],
        "22222222-2222-2222-2222-222222222222":["AWSCURRENT","mine"]}}"#;
    let server = Server::new(vec![Then::Answer(200, body.to_owned())]);
    let arn = tde2hsm_protocol::SecretArn::new("arn:aws:secretsmanager:us-east-1:123456789012:secret:tde/x-AbCdEf").unwrap();
    let secret = server.aws.secrets.describe(&arn).await.unwrap().unwrap();
    assert_eq!(secret.current.unwrap().as_str(), "22222222-2222-2222-2222-222222222222");
    assert_eq!(secret.versions.len(), 2);
    assert_eq!(server.targets(), ["secretsmanager.DescribeSecret"]);
}
