use super::*;
use crate::ec2::InstanceSpec;
use crate::{AccountId, CallFault, Caller, Effect, Principal, Request, World};
use serde_json::json;

const T0: Millis = Millis(1_800_000_000_000);

struct Bed {
    world: World,
    region: Region,
    caller: Caller,
    now: Millis,
    ids: Vec<InstanceId>,
}

/// A step the agent has finished.
fn step(name: &str, state: StepState, code: i32, stdout: &str) -> StepOutcome {
    StepOutcome {
        name: name.into(),
        state,
        code,
        stdout: stdout.into(),
        stderr: String::new(),
        started: T0,
        finished: Some(T0.plus_ms(500)),
    }
}

impl Bed {
    fn new(hosts: usize) -> Self {
        let region = Region::new("us-east-1");
        let mut world = World::new(AccountId::new("123456789012"), std::slice::from_ref(&region), 11, WorldOptions::default());
        let ids: Vec<InstanceId> = (0..hosts).map(|n| InstanceId::new(format!("i-{n:017x}"))).collect();
        let state = world.region_mut(&region).unwrap();
        for (n, id) in ids.iter().enumerate() {
            state.ec2.add_instance(&InstanceSpec {
                id: id.clone(),
                image: "ami-1".into(),
                kind: "r6i.large".into(),
                subnet: String::new(),
                groups: vec![],
                private_ip: format!("10.0.0.{n}"),
                profile: "arn".into(),
                launched: T0,
                tags: vec![("fleet".into(), "demo".into())],
                volumes: vec![],
            });
            state.ssm.register(Node {
                instance: id.clone(),
                agent_version: "3.3.3572.0".into(),
                online: true,
                undeliverable: false,
                platform_name: "Red Hat Enterprise Linux".into(),
                platform_version: "8.10".into(),
                computer_name: format!("h{n}"),
                ip: format!("10.0.0.{n}"),
                role: "role".into(),
                registered: T0,
                last_ping: T0,
            });
        }
        let caller = Caller {
            principal: Principal::Operator,
            arn: "arn:aws:sts::123456789012:assumed-role/o/s".into(),
            user_id: "A:s".into(),
        };
        Self { world, region, caller, now: T0, ids }
    }

    fn reply(&mut self, operation: &str, body: Value) -> crate::Reply {
        let request = Request { caller: &self.caller, region: &self.region, service: Service::Ssm, operation, body: &body };
        self.world.call(&request, self.now)
    }

    fn call(&mut self, operation: &str, body: Value) -> Result<Value, ApiError> {
        self.reply(operation, body).result
    }

    fn ok(&mut self, operation: &str, body: Value) -> Value {
        self.call(operation, body).unwrap_or_else(|e| panic!("{operation}: {e}"))
    }

    fn code(&mut self, operation: &str, body: Value) -> String {
        self.call(operation, body).expect_err(operation).code
    }

    /// Lets `ms` pass and returns the instances that got a command meanwhile.
    fn pass(&mut self, ms: i64) -> Vec<(CommandId, InstanceId)> {
        self.now = self.now.plus_ms(ms);
        self.world.tick(self.now);
        self.world
            .take_effects()
            .into_iter()
            .filter_map(|effect| match effect {
                Effect::Deliver { instance, command, .. } => Some((command, instance)),
                _ => None,
            })
            .collect()
    }

    fn send(&mut self, more: Value) -> CommandId {
        let ids: Vec<&str> = self.ids.iter().map(InstanceId::as_str).collect();
        let mut body = json!({"DocumentName": RUN_SHELL_SCRIPT, "InstanceIds": ids, "Parameters": {"commands": ["true"]}});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let reply = self.ok("SendCommand", body);
        CommandId::new(reply["Command"]["CommandId"].as_str().unwrap())
    }

    fn finish(&mut self, command: &CommandId, instance: &InstanceId, outcome: StepOutcome) {
        let region = self.region.clone();
        self.world.agent_started(&region, command, instance);
        self.world.agent_finished(&region, command, instance, vec![outcome]);
    }

    fn invocations(&mut self, command: &CommandId) -> Vec<Value> {
        let reply = self.ok("ListCommandInvocations", json!({"CommandId": command.as_str(), "Details": true}));
        reply["CommandInvocations"].as_array().unwrap().clone()
    }

    fn details(&mut self, command: &CommandId) -> Vec<String> {
        self.invocations(command).iter().map(|i| i["StatusDetails"].as_str().unwrap().to_owned()).collect()
    }

    fn command(&mut self, id: &CommandId) -> Value {
        self.ok("ListCommands", json!({"CommandId": id.as_str()}))["Commands"][0].clone()
    }

    fn document(&mut self, name: &str, content: &Value) -> Value {
        let reply = self.ok("CreateDocument", json!({"Name": name, "Content": content.to_string(), "DocumentType": "Command"}));
        self.pass(1_000);
        reply["DocumentDescription"].clone()
    }
}

fn one_step() -> Value {
    json!({"schemaVersion": "2.2", "parameters": {"Order": {"type": "String", "allowedPattern": "^[a-z]+$"}},
        "mainSteps": [{"action": "aws:runShellScript", "name": "run", "inputs": {"timeoutSeconds": "60", "runCommand": ["true"]}}]})
}

#[test]
fn a_command_is_invisible_at_first_and_then_runs_to_success() {
    let mut bed = Bed::new(2);
    bed.world.options.visibility_lag_ms = 5_000;
    let id = bed.send(json!({"Comment": "token"}));
    let body = json!({"CommandId": id.as_str(), "InstanceId": bed.ids[0].as_str()});
    assert_eq!(bed.code("GetCommandInvocation", body.clone()), "InvocationDoesNotExist");
    assert!(bed.invocations(&id).is_empty());
    let delivered = bed.pass(5_000);
    assert_eq!(delivered.len(), 2);
    assert_eq!(bed.details(&id), ["Pending", "Pending"]);
    for (command, instance) in delivered {
        bed.finish(&command, &instance, step("aws:runShellScript", StepState::Success, 0, "out"));
    }
    assert_eq!(bed.details(&id), ["Success", "Success"]);
    let got = bed.ok("GetCommandInvocation", body);
    assert_eq!((got["StandardOutputContent"].as_str(), got["ResponseCode"].as_i64()), (Some("out"), Some(0)));
    let command = bed.command(&id);
    assert_eq!((command["Status"].as_str(), command["Comment"].as_str()), (Some("Success"), Some("token")));
}

#[test]
fn a_document_is_pinned_by_version_and_hash() {
    let mut bed = Bed::new(1);
    let first = bed.document("tde2hsm-run", &one_step());
    let instance = bed.ids[0].as_str().to_owned();
    let send = |hash: &Value, version: &str| {
        json!({"DocumentName": "tde2hsm-run", "DocumentVersion": version, "DocumentHash": hash, "DocumentHashType": "Sha256",
            "InstanceIds": [instance], "Parameters": {"Order": ["abc"]}})
    };
    bed.ok("SendCommand", send(&first["Hash"], "1"));
    assert_eq!(bed.code("SendCommand", send(&json!("00"), "1")), "InvalidDocument");
    assert_eq!(bed.code("SendCommand", send(&first["Hash"], "2")), "InvalidDocumentVersion");

    let same = json!({"Name": "tde2hsm-run", "Content": one_step().to_string(), "DocumentVersion": "$LATEST"});
    assert_eq!(bed.code("UpdateDocument", same), "DuplicateDocumentContent");
    let mut other = one_step();
    other["description"] = json!("another");
    bed.ok("UpdateDocument", json!({"Name": "tde2hsm-run", "Content": other.to_string(), "DocumentVersion": "$LATEST"}));
    assert_eq!(bed.code("SendCommand", send(&first["Hash"], "$LATEST")), "InvalidDocument");
    bed.pass(1_000);
    assert_eq!(bed.ok("DescribeDocument", json!({"Name": "tde2hsm-run"}))["Document"]["DefaultVersion"], "1");
    bed.ok("UpdateDocumentDefaultVersion", json!({"Name": "tde2hsm-run", "DocumentVersion": "2"}));
    assert_eq!(bed.ok("DescribeDocument", json!({"Name": "tde2hsm-run"}))["Document"]["DocumentVersion"], "2");
    let bad_order =
        json!({"DocumentName": "tde2hsm-run", "InstanceIds": [bed.ids[0].as_str()], "Parameters": {"Order": ["A;B"]}});
    assert_eq!(bed.code("SendCommand", bad_order), "InvalidParameters");
}

#[test]
fn one_bad_instance_rejects_the_whole_call() {
    let mut bed = Bed::new(2);
    let id = bed.ids[1].clone();
    let region = bed.region.clone();
    bed.world.region_mut(&region).unwrap().ec2.set_state(&id, "terminated");
    let ids: Vec<String> = bed.ids.iter().map(ToString::to_string).collect();
    let body = json!({"DocumentName": RUN_SHELL_SCRIPT, "InstanceIds": ids, "Parameters": {"commands": ["true"]}});
    let error = bed.call("SendCommand", body).unwrap_err();
    assert_eq!(error.code, "InvalidInstanceId");
    assert!(error.message.contains(&ids[1]) && !error.message.contains(&ids[0]), "{}", error.message);
    assert!(bed.pass(1_000).is_empty());
}

#[test]
fn limits_of_send_command() {
    let mut bed = Bed::new(1);
    let id = bed.ids[0].to_string();
    let with = |name: &str, value: Value| {
        let mut body = json!({"DocumentName": RUN_SHELL_SCRIPT, "InstanceIds": [id], "Parameters": {"commands": ["true"]}});
        body[name] = value;
        body
    };
    let many: Vec<String> = (0..51).map(|n| format!("i-{n:017x}")).collect();
    for (name, value, code) in [
        ("InstanceIds", json!(many), "ValidationException"),
        ("InstanceIds", json!([id, id]), "DuplicateInstanceId"),
        ("Comment", json!("x".repeat(101)), "ValidationException"),
        ("TimeoutSeconds", json!(29), "ValidationException"),
        ("MaxConcurrency", json!("0"), "ValidationException"),
        ("MaxErrors", json!("101%"), "ValidationException"),
        ("DocumentName", json!("no-such-document"), "InvalidDocument"),
        ("Parameters", json!({"commands": ["true"], "other": ["x"]}), "InvalidParameters"),
        ("Parameters", json!({}), "InvalidParameters"),
        ("Parameters", json!({"commands": ["x".repeat(70_000)]}), "MaxDocumentSizeExceeded"),
    ] {
        assert_eq!(bed.code("SendCommand", with(name, value.clone())), code, "{name}");
    }
    let paged = json!({"MaxResults": 51});
    assert_eq!(bed.code("ListCommandInvocations", paged), "ValidationException");
}

#[test]
fn output_of_a_step_is_one_limit_over_both_streams_and_empty_before_its_end() {
    let long = "x".repeat(3_000);
    assert_eq!(output_block(&long, "").len(), 2_500);
    assert!(output_block(&long, "").ends_with("truncated---"));
    let both = output_block(&long, &"e".repeat(3_000));
    assert!(both.len() <= 2_500, "{}", both.len());
    assert!(both.contains("ERROR"));
    assert_eq!(output_block(&"y".repeat(2_000), "").len(), 2_000);
    // A report that would fit alone does not fit beside a chatty stderr.
    assert!(output_block(&"y".repeat(2_000), &"e".repeat(1_000)).contains("---Output truncated---"));

    let mut bed = Bed::new(1);
    let id = bed.send(json!({}));
    let (command, instance) = bed.pass(1_000).remove(0);
    let region = bed.region.clone();
    bed.world.agent_started(&region, &command, &instance);
    let running = StepOutcome { finished: None, ..step("aws:runShellScript", StepState::InProgress, -1, "early") };
    bed.world.agent_progress(&region, &command, &instance, vec![running]);
    assert_eq!(bed.invocations(&id)[0]["CommandPlugins"][0]["Output"], "");
    bed.finish(&command, &instance, step("aws:runShellScript", StepState::Success, 0, &"z".repeat(30_000)));
    let got = bed.ok("GetCommandInvocation", json!({"CommandId": id.as_str(), "InstanceId": instance.as_str()}));
    assert_eq!(got["StandardOutputContent"].as_str().unwrap().len(), 24_000);
}

#[test]
fn delivery_timed_out_says_nothing_about_the_work() {
    let mut bed = Bed::new(1);
    bed.world.faults.lose_terminal_reply(1);
    let id = bed.send(json!({"TimeoutSeconds": 30, "Parameters": {"commands": ["true"], "executionTimeout": ["60"]}}));
    let (command, instance) = bed.pass(1_000).remove(0);
    bed.finish(&command, &instance, step("aws:runShellScript", StepState::Success, 0, "done"));
    assert_eq!(bed.details(&id), ["InProgress"]);
    bed.pass(91_000);
    assert_eq!(bed.details(&id), ["DeliveryTimedOut"]);
    assert_eq!(bed.command(&id)["DeliveryTimedOutCount"], 1);
    // What comes later changes nothing.
    bed.finish(&command, &instance, step("aws:runShellScript", StepState::Success, 0, "done"));
    assert_eq!(bed.details(&id), ["DeliveryTimedOut"]);
}

#[test]
fn an_offline_agent_delays_and_then_never_runs_what_is_too_late() {
    let mut bed = Bed::new(1);
    let (region, instance) = (bed.region.clone(), bed.ids[0].clone());
    let online = |bed: &mut Bed, yes: bool| bed.world.region_mut(&region).unwrap().ssm.node_mut(&instance).unwrap().online = yes;
    online(&mut bed, false);
    let first = bed.send(json!({"TimeoutSeconds": 60}));
    let second = bed.send(json!({"TimeoutSeconds": 3_600}));
    assert!(bed.pass(10_000).is_empty());
    assert_eq!(bed.details(&first), ["Delayed"]);
    let info = bed.ok("DescribeInstanceInformation", json!({}));
    assert_eq!(info["InstanceInformationList"][0]["PingStatus"], "ConnectionLost");
    bed.pass(60_000);
    assert_eq!(bed.details(&first), ["DeliveryTimedOut"]);
    online(&mut bed, true);
    assert_eq!(bed.pass(10), [(second, instance.clone())]);

    bed.world.region_mut(&region).unwrap().ssm.node_mut(&instance).unwrap().undeliverable = true;
    let third = bed.send(json!({}));
    bed.pass(1_000);
    assert_eq!(bed.details(&third), ["Undeliverable"]);
    assert_eq!(bed.command(&third)["Status"], "Success", "the aggregate trap of A§1.3");
}

#[test]
fn h31_deliveries_come_late_and_twice() {
    let mut bed = Bed::new(1);
    bed.world.faults.deliver_twice(1);
    bed.send(json!({}));
    let mut got = bed.pass(100);
    got.extend(bed.pass(100));
    assert_eq!(got.len(), 2);
    bed.world.faults.deliver_late(1, 7_200_000);
    let id = bed.send(json!({"TimeoutSeconds": 30, "Parameters": {"commands": ["true"], "executionTimeout": ["60"]}}));
    assert!(bed.pass(1_000).is_empty());
    assert!(bed.pass(100_000).is_empty());
    assert_eq!(bed.details(&id), ["DeliveryTimedOut"]);
    assert_eq!(bed.pass(7_200_000).len(), 1);
    // And any command can be delivered again, also to a host it was never meant for.
    let region = bed.region.clone();
    let stranger = InstanceId::new("i-0000000000000000f");
    assert!(bed.world.region_mut(&region).unwrap().ssm.redeliver(&id, &stranger));
    assert_eq!(bed.pass(1), [(id, stranger)]);
}

#[test]
fn max_errors_stops_what_has_not_been_delivered() {
    let mut bed = Bed::new(4);
    let id = bed.send(json!({"MaxConcurrency": "1", "MaxErrors": "0"}));
    let got = bed.pass(1_000);
    assert_eq!(got.len(), 1);
    bed.finish(&id, &got[0].1, step("aws:runShellScript", StepState::Failed, 1, ""));
    assert!(bed.pass(1_000).is_empty());
    let mut details = bed.details(&id);
    details.sort();
    assert_eq!(details, ["Failed", "Terminated", "Terminated", "Terminated"]);
    let command = bed.command(&id);
    assert_eq!((command["StatusDetails"].as_str(), command["ErrorCount"].as_i64()), (Some("Incomplete"), Some(1)));
}

#[test]
fn cancel_reaches_the_agent_and_what_was_not_delivered() {
    let mut bed = Bed::new(2);
    let id = bed.send(json!({"MaxConcurrency": "1"}));
    let got = bed.pass(1_000);
    bed.ok("CancelCommand", json!({"CommandId": id.as_str()}));
    bed.world.tick(bed.now);
    let effects = bed.world.take_effects();
    assert!(matches!(&effects[..], [Effect::Cancel { instance, .. }] if *instance == got[0].1), "{effects:?}");
    bed.finish(&id, &got[0].1, step("aws:runShellScript", StepState::Cancelled, 137, ""));
    assert_eq!(bed.details(&id), ["Cancelled", "Cancelled"]);
}

#[test]
fn a_lost_command_is_found_again_by_its_comment() {
    let mut bed = Bed::new(1);
    bed.world.faults.arm(CallFault::LoseReply, Service::Ssm, "SendCommand", 1);
    let body = json!({"DocumentName": RUN_SHELL_SCRIPT, "InstanceIds": [bed.ids[0].as_str()], "Comment": "op-17", "Parameters": {"commands": ["true"]}});
    assert_eq!(bed.reply("SendCommand", body).fate, crate::Fate::Lost);
    bed.pass(1_000);
    let after = T0.plus_secs(-60).iso();
    let filter = json!({"InstanceId": bed.ids[0].as_str(), "Filters": [{"key": "InvokedAfter", "value": after}, {"key": "DocumentName", "value": RUN_SHELL_SCRIPT}]});
    let found = bed.ok("ListCommands", filter);
    assert_eq!(found["Commands"][0]["Comment"], "op-17");
    assert_eq!(bed.code("ListCommands", json!({"Filters": [{"key": "Comment", "value": "op-17"}]})), "InvalidFilterKey");

    bed.world.faults.arm(CallFault::LoseRequest, Service::Ssm, "*", 1);
    assert_eq!(bed.reply("ListCommands", json!({})).fate, crate::Fate::Lost);
    bed.world.faults.arm(CallFault::Throttle, Service::Ssm, "ListCommands", 2);
    for code in ["ThrottlingException", "ThrottlingException", ""] {
        let got = bed.call("ListCommands", json!({})).err().map(|e| e.code).unwrap_or_default();
        assert_eq!(got, code);
    }
    assert_eq!(bed.world.calls(true)["ssm:ListCommands"], 6);
}

#[test]
fn list_calls_page_through_everything() {
    let mut bed = Bed::new(7);
    let id = bed.send(json!({}));
    bed.pass(1_000);
    let (mut token, mut seen) = (Value::Null, Vec::new());
    loop {
        let mut body = json!({"CommandId": id.as_str(), "MaxResults": 3});
        if !token.is_null() {
            body["NextToken"] = token;
        }
        let page = bed.ok("ListCommandInvocations", body);
        seen.extend(page["CommandInvocations"].as_array().unwrap().iter().map(|i| i["InstanceId"].to_string()));
        token = page["NextToken"].clone();
        if token.is_null() {
            break;
        }
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 7);
    let info =
        bed.ok("DescribeInstanceInformation", json!({"MaxResults": 5, "Filters": [{"Key": "tag:fleet", "Values": ["demo"]}]}));
    assert_eq!(info["InstanceInformationList"].as_array().unwrap().len(), 5);
    assert_eq!(bed.code("ListCommands", json!({"NextToken": "nonsense"})), "InvalidNextToken");
}

#[test]
fn a_host_role_may_not_send_commands() {
    let mut bed = Bed::new(1);
    bed.caller.principal = Principal::Host(bed.ids[0].clone());
    assert_eq!(bed.code("ListCommands", json!({})), "AccessDeniedException");
    assert_eq!(bed.code("NoSuchCall", json!({})), "AccessDeniedException");
    bed.caller.principal = Principal::Operator;
    let error = bed.call("NoSuchCall", json!({})).unwrap_err();
    assert!(error.code == "UnknownOperationException" && error.message.contains("NoSuchCall"), "{error}");
}
