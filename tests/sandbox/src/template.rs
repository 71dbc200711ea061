//! The CloudFormation templates of `infra/`, as far as a function needs them: its handler, its environment, what its role may
//! do, which events and schedules reach it. What runs here is configured by what is deployed, and not by a second list.

use anyhow::{Context as _, Result, bail};
use saphyr::{LoadableYamlNode as _, Scalar, Yaml};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tde2hsm_model::Region;

/// A function as a template declares it.
#[derive(Debug, Clone)]
pub struct Function {
    /// Its handler, which is also how everyone calls it.
    pub name: String,
    pub function_name: String,
    pub region: Region,
    pub environment: BTreeMap<String, String>,
    pub memory: u32,
    pub timeout: Duration,
    pub statements: Vec<Statement>,
    /// Event patterns of the rules that invoke it.
    pub patterns: Vec<Value>,
    /// A schedule invokes it; its input.
    pub schedules: Vec<Value>,
    /// How often an asynchronous invocation that failed is tried again, and how long one may wait in Lambda's queue.
    pub retries: u32,
    pub event_age: Duration,
}

/// What a role's policy allows, or denies.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    pub deny: bool,
    pub actions: Vec<String>,
    /// Of those, the ones that it is not about: a statement with NotAction.
    pub except: Vec<String>,
    pub resources: Vec<String>,
    pub condition: Value,
}

/// What a template is deployed with.
#[derive(Debug, Clone)]
pub struct Deployment {
    pub account: String,
    pub region: Region,
    pub parameters: BTreeMap<String, Value>,
    /// Of resources that exist in the world: what Ref and GetAtt Arn give, by logical id.
    pub resources: BTreeMap<String, (String, String)>,
}

/// Reads a template, YAML with CloudFormation's short tags or JSON, into its long form; once, as long as the file stays as it is.
pub fn read(path: &Path) -> Result<Arc<Value>> {
    type Known = BTreeMap<PathBuf, (SystemTime, Arc<Value>)>;
    static KNOWN: Mutex<Known> = Mutex::new(BTreeMap::new());
    let changed = std::fs::metadata(path).and_then(|meta| meta.modified()).with_context(|| path.display().to_string())?;
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((of, template)) = known.get(path)
        && *of == changed
    {
        return Ok(template.clone());
    }
    let template = Arc::new(parse(path)?);
    known.insert(path.to_owned(), (changed, template.clone()));
    Ok(template)
}

fn parse(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let documents = Yaml::load_from_str(&text).with_context(|| path.display().to_string())?;
    let [document] = documents.as_slice() else { bail!("{} is not one document", path.display()) };
    plain(document).with_context(|| path.display().to_string())
}

fn plain(yaml: &Yaml<'_>) -> Result<Value> {
    Ok(match yaml {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(b)) => (*b).into(),
        Yaml::Value(Scalar::Integer(n)) => (*n).into(),
        Yaml::Value(Scalar::FloatingPoint(n)) => n.into_inner().into(),
        Yaml::Value(Scalar::String(text)) => text.as_ref().into(),
        Yaml::Sequence(items) => items.iter().map(plain).collect::<Result<Vec<_>>>()?.into(),
        Yaml::Mapping(map) => {
            let mut out = Map::new();
            for (name, value) in map {
                let name = match plain(name)? {
                    Value::String(name) => name,
                    other => other.to_string(),
                };
                out.insert(name, plain(value)?);
            }
            out.into()
        }
        Yaml::Tagged(tag, inner) => {
            let name = match tag.suffix.as_ref() {
                name @ ("Ref" | "Condition") => name.to_owned(),
                name => format!("Fn::{name}"),
            };
            json!({name: plain(inner)?})
        }
        other => bail!("{other:?} is not understood"),
    })
}

struct Resolver<'a> {
    template: &'a Value,
    deployment: &'a Deployment,
}

impl Resolver<'_> {
    fn value(&self, value: &Value) -> Result<Value> {
        let Some(map) = value.as_object() else {
            return match value {
                Value::Array(items) => {
                    let mut out = Vec::new();
                    for item in items {
                        out.extend(Some(self.value(item)?).filter(|v| !is_no_value(v)));
                    }
                    Ok(out.into())
                }
                other => Ok(other.clone()),
            };
        };
        if let [(name, argument)] = map.iter().collect::<Vec<_>>()[..] {
            match name.as_str() {
                "Ref" => return self.reference(argument.as_str().context("Ref names something")?),
                "Fn::Sub" => return self.sub(argument),
                "Fn::GetAtt" => {
                    let path = match argument {
                        Value::Array(parts) => parts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("."),
                        other => other.as_str().unwrap_or_default().to_owned(),
                    };
                    return self.attribute(&path).map(Value::from);
                }
                "Fn::Join" => {
                    let separator = argument[0].as_str().unwrap_or_default();
                    let parts = self.value(&argument[1])?;
                    let parts: Vec<String> = parts.as_array().into_iter().flatten().map(text).collect();
                    return Ok(parts.join(separator).into());
                }
                "Fn::Select" => {
                    let at = self.value(&argument[0])?;
                    let at = at.as_u64().or_else(|| at.as_str()?.parse().ok()).unwrap_or_default();
                    return Ok(self.value(&argument[1])?[usize::try_from(at)?].clone());
                }
                "Fn::Split" => {
                    let whole = text(&self.value(&argument[1])?);
                    return Ok(whole.split(argument[0].as_str().unwrap_or(",")).collect::<Vec<_>>().into());
                }
                "Fn::If" => {
                    let holds = self.condition(argument[0].as_str().unwrap_or_default())?;
                    return self.value(&argument[if holds { 1 } else { 2 }]);
                }
                other if other.starts_with("Fn::") => bail!("{other} is not understood"),
                _ => {}
            }
        }
        let mut out = Map::new();
        for (name, member) in map {
            let member = self.value(member)?;
            if !is_no_value(&member) {
                out.insert(name.clone(), member);
            }
        }
        Ok(out.into())
    }

    fn condition(&self, name: &str) -> Result<bool> {
        self.test(&self.template["Conditions"][name])
    }

    fn test(&self, value: &Value) -> Result<bool> {
        let (name, argument) = value.as_object().and_then(|map| map.iter().next()).context("a condition is a function")?;
        let all =
            |argument: &Value| -> Result<Vec<bool>> { argument.as_array().into_iter().flatten().map(|v| self.test(v)).collect() };
        Ok(match name.as_str() {
            "Fn::Equals" => text(&self.value(&argument[0])?) == text(&self.value(&argument[1])?),
            "Fn::Not" => !self.test(&argument[0])?,
            "Fn::And" => all(argument)?.into_iter().all(|b| b),
            "Fn::Or" => all(argument)?.into_iter().any(|b| b),
            "Condition" => self.condition(argument.as_str().unwrap_or_default())?,
            other => bail!("{other} is no condition"),
        })
    }

    fn reference(&self, name: &str) -> Result<Value> {
        let deployment = self.deployment;
        Ok(match name {
            "AWS::Region" => deployment.region.as_str().into(),
            "AWS::AccountId" => deployment.account.as_str().into(),
            "AWS::Partition" => "aws".into(),
            "AWS::URLSuffix" => "amazonaws.com".into(),
            "AWS::StackName" => "tde2hsm".into(),
            "AWS::NoValue" => json!({"AWS::NoValue": true}),
            _ => {
                if let Some((id, _)) = deployment.resources.get(name) {
                    return Ok(id.as_str().into());
                }
                let parameter = &self.template["Parameters"][name];
                if parameter.is_null() {
                    return Ok(name.into());
                }
                let value = deployment.parameters.get(name).unwrap_or(&parameter["Default"]);
                let is_list = parameter["Type"].as_str().is_some_and(|t| t == "CommaDelimitedList" || t.starts_with("List<"));
                match value {
                    Value::Null => bail!("the parameter {name} has no value"),
                    Value::String(one) if is_list => one.split(',').collect::<Vec<_>>().into(),
                    other => other.clone(),
                }
            }
        })
    }

    fn attribute(&self, path: &str) -> Result<String> {
        let (id, attribute) = path.split_once('.').with_context(|| format!("{path} is no attribute"))?;
        if let Some((_, arn)) = self.deployment.resources.get(id) {
            return Ok(arn.clone());
        }
        if self.template["Resources"][id].is_null() {
            bail!("there is no resource {id}");
        }
        let Deployment { account, region, .. } = self.deployment;
        Ok(format!("arn:aws:{}:{region}:{account}:{id}", attribute.to_lowercase()))
    }

    fn sub(&self, argument: &Value) -> Result<Value> {
        let (pattern, own) = match argument {
            Value::Array(parts) => (parts[0].as_str(), parts[1].as_object()),
            other => (other.as_str(), None),
        };
        let mut rest = pattern.context("Sub takes a text")?;
        let mut out = String::new();
        while let Some(at) = rest.find("${") {
            out.push_str(&rest[..at]);
            let end = rest[at..].find('}').map(|end| at + end).context("`${` without `}`")?;
            let name = &rest[at + 2..end];
            match name.strip_prefix('!') {
                Some(literal) => out.push_str(&format!("${{{literal}}}")),
                None => {
                    let value = match own.and_then(|own| own.get(name)) {
                        Some(value) => self.value(value)?,
                        None if name.contains('.') => self.attribute(name)?.into(),
                        None => self.reference(name)?,
                    };
                    out.push_str(&text(&value));
                }
            }
            rest = &rest[end + 1..];
        }
        out.push_str(rest);
        Ok(out.into())
    }
}

fn is_no_value(value: &Value) -> bool {
    value.get("AWS::NoValue").is_some()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().map(text).collect(),
        Value::Null => Vec::new(),
        one => vec![text(one)],
    }
}

/// The functions of a template.
pub fn functions(template: &Value, deployment: &Deployment) -> Result<Vec<Function>> {
    let resolver = Resolver { template, deployment };
    let of_kind = |kind: &str| -> Vec<(&String, &Value)> {
        template["Resources"].as_object().into_iter().flatten().filter(|(_, r)| r["Type"] == kind).collect()
    };
    let mut found = Vec::new();
    for (id, resource) in of_kind("AWS::Lambda::Function") {
        let about = |what: &str| format!("{what} of {id}");
        let properties = &resource["Properties"];
        let get = |name: &str| resolver.value(&properties[name]).with_context(|| about(name));
        let role = properties["Role"]["Fn::GetAtt"]
            .as_str()
            .and_then(|path| path.strip_suffix(".Arn"))
            .with_context(|| about("role"))?;
        let mut statements = of_role(&resolver, role).with_context(|| about("role"))?;
        for (_, policy) in of_kind("AWS::IAM::Policy") {
            let roles = policy["Properties"]["Roles"].as_array();
            if roles.into_iter().flatten().any(|r| r["Ref"] == role) {
                statements.extend(self::statements(&resolver, &policy["Properties"]["PolicyDocument"])?);
            }
        }
        let is_target = |target: &Value| target["Arn"]["Fn::GetAtt"].as_str() == Some(&format!("{id}.Arn"));
        let mut patterns = Vec::new();
        for (_, rule) in of_kind("AWS::Events::Rule") {
            if rule["Properties"]["Targets"].as_array().into_iter().flatten().any(is_target) {
                patterns.push(resolver.value(&rule["Properties"]["EventPattern"])?);
            }
        }
        let mut schedules = Vec::new();
        for (_, schedule) in of_kind("AWS::Scheduler::Schedule") {
            let target = &schedule["Properties"]["Target"];
            if is_target(target) {
                let input = resolver.value(&target["Input"])?;
                schedules.push(input.as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_else(|| json!({})));
            }
        }
        // What Lambda does where nothing is said (A§7).
        let (mut retries, mut event_age) = (2, Duration::from_secs(6 * 3_600));
        for (_, config) in of_kind("AWS::Lambda::EventInvokeConfig") {
            let properties = &config["Properties"];
            if properties["FunctionName"]["Ref"] == **id {
                let number = |name: &str| -> Result<Option<u64>> { Ok(resolver.value(&properties[name])?.as_u64()) };
                retries = number("MaximumRetryAttempts")?.map_or(Ok(retries), TryInto::try_into)?;
                event_age = number("MaximumEventAgeInSeconds")?.map_or(event_age, Duration::from_secs);
            }
        }
        let environment = get("Environment")?;
        let variables = environment["Variables"].as_object().cloned().unwrap_or_default();
        found.push(Function {
            name: text(&get("Handler")?),
            function_name: text(&get("FunctionName")?),
            region: deployment.region.clone(),
            environment: variables.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
            memory: get("MemorySize")?.as_u64().unwrap_or(128).try_into()?,
            timeout: Duration::from_secs(get("Timeout")?.as_u64().unwrap_or(3)),
            statements,
            patterns,
            schedules,
            retries,
            event_age,
        });
    }
    Ok(found)
}

/// What is written into a role, and the template's managed policies that it names.
fn of_role(resolver: &Resolver<'_>, role: &str) -> Result<Vec<Statement>> {
    let resources = &resolver.template["Resources"];
    let properties = &resources[role]["Properties"];
    let written = properties["Policies"].as_array().into_iter().flatten().map(|policy| &policy["PolicyDocument"]);
    let named = properties["ManagedPolicyArns"].as_array().into_iter().flatten().map(|arn| {
        let id = arn["Ref"].as_str().unwrap_or_default();
        &resources[id]["Properties"]["PolicyDocument"]
    });
    let mut out = Vec::new();
    for document in written.chain(named) {
        out.extend(statements(resolver, document)?);
    }
    Ok(out)
}

fn statements(resolver: &Resolver<'_>, document: &Value) -> Result<Vec<Statement>> {
    let document = match resolver.value(document)? {
        Value::String(text) => serde_json::from_str(&text).context("a policy written as text")?,
        other => other,
    };
    let list = match &document["Statement"] {
        Value::Array(list) => list.clone(),
        one => vec![one.clone()],
    };
    let mut out = Vec::new();
    for statement in list {
        let (actions, except) = match (&statement["Action"], &statement["NotAction"]) {
            (Value::Null, Value::Null) => bail!("a statement about no action: {statement}"),
            (Value::Null, except) => (vec!["*".to_owned()], texts(except)),
            (actions, _) => (texts(actions), Vec::new()),
        };
        let deny = statement["Effect"] == "Deny";
        let known = |operator: &String| operator == "StringEquals" || operator == "StringNotEquals";
        if deny && !statement["Condition"].as_object().into_iter().flatten().all(|(operator, _)| known(operator)) {
            bail!("a denial under a condition that is not understood would not be seen: {statement}");
        }
        out.push(Statement {
            deny,
            actions,
            except,
            resources: texts(&statement["Resource"]),
            condition: statement["Condition"].clone(),
        });
    }
    Ok(out)
}

/// Whether an event pattern of EventBridge takes an event. A form that is not known takes nothing.
pub fn takes(pattern: &Value, event: &Value) -> bool {
    match pattern {
        Value::Object(members) => members.iter().all(|(name, inner)| takes(inner, &event[name])),
        Value::Array(allowed) => match event {
            Value::Array(values) => values.iter().any(|value| allowed.iter().any(|a| admits(a, value))),
            value => allowed.iter().any(|a| admits(a, value)),
        },
        _ => false,
    }
}

fn admits(allowed: &Value, value: &Value) -> bool {
    let Some(form) = allowed.as_object() else { return allowed == value && !value.is_null() };
    match form.iter().next() {
        Some((name, argument)) => match name.as_str() {
            "prefix" => value.as_str().zip(argument.as_str()).is_some_and(|(v, p)| v.starts_with(p)),
            "suffix" => value.as_str().zip(argument.as_str()).is_some_and(|(v, p)| v.ends_with(p)),
            "exists" => argument.as_bool() == Some(!value.is_null()),
            "anything-but" => match argument {
                Value::Array(not) => !not.contains(value),
                not => not != value,
            },
            _ => false,
        },
        None => false,
    }
}

/// Whether a role may do something in a region. `tags`: those the request gives to what it makes.
pub fn permits(statements: &[Statement], action: &str, region: &Region, tags: &BTreeMap<String, String>) -> bool {
    let applies = |statement: &&Statement| statement.applies(action, region, tags);
    !statements.iter().filter(|s| s.deny).any(|s| applies(&s)) && statements.iter().filter(|s| !s.deny).any(|s| applies(&s))
}

impl Statement {
    /// Whether this is about an action in a region, as far as region and request tags decide.
    fn applies(&self, action: &str, region: &Region, tags: &BTreeMap<String, String>) -> bool {
        let holds = |key: &str, wanted: &Value| {
            let wanted = texts(wanted);
            match key.strip_prefix("aws:RequestTag/") {
                Some(tag) => Some(tags.get(tag).is_some_and(|value| wanted.contains(value))),
                None if key == "aws:RequestedRegion" => Some(wanted.iter().any(|w| w == region.as_str())),
                None => None,
            }
        };
        let all = |operator: &str, wish: bool| {
            let keys = self.condition[operator].as_object().into_iter().flatten();
            // What is not judged does not stand in the way of an allowance.
            keys.into_iter().all(|(key, wanted)| holds(key, wanted).is_none_or(|is| is == wish))
        };
        self.actions.iter().any(|pattern| wildcard(pattern, action))
            && !self.except.iter().any(|pattern| wildcard(pattern, action))
            && self.resources.iter().any(|arn| {
                let place = arn.split(':').nth(3).unwrap_or_default();
                arn == "*" || place.is_empty() || place == "*" || place == region.as_str()
            })
            && all("StringEquals", true)
            && all("StringNotEquals", false)
    }
}

/// What a role may do, by its name; `None` where the template has no such role.
pub fn role(template: &Value, deployment: &Deployment, name: &str) -> Result<Option<Vec<Statement>>> {
    let resolver = Resolver { template, deployment };
    for (id, resource) in template["Resources"].as_object().into_iter().flatten() {
        let is = resource["Type"] == "AWS::IAM::Role";
        if is && text(&resolver.value(&resource["Properties"]["RoleName"])?) == name {
            return of_role(&resolver, id).map(Some);
        }
    }
    Ok(None)
}

/// What the role of an instance profile may do; `None` where the template has no such profile.
pub fn profile(template: &Value, deployment: &Deployment, name: &str) -> Result<Option<Vec<Statement>>> {
    let resolver = Resolver { template, deployment };
    for (_, resource) in template["Resources"].as_object().into_iter().flatten() {
        let properties = &resource["Properties"];
        if resource["Type"] != "AWS::IAM::InstanceProfile" || text(&resolver.value(&properties["InstanceProfileName"])?) != name {
            continue;
        }
        let role = properties["Roles"][0]["Ref"].as_str().context("a profile has a role")?;
        return Ok(Some(of_role(&resolver, role)?));
    }
    Ok(None)
}

fn wildcard(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text
            .strip_prefix(head)
            .is_some_and(|rest| (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| wildcard(tail, &rest[at..]))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = r#"
Parameters:
  NamePrefix: {Type: String, Default: tde2hsm}
  Arns: {Type: CommaDelimitedList}
  DrRegion: {Type: String}
Conditions:
  Never: !Equals [!Ref NamePrefix, ""]
Resources:
  CopyRole:
    Type: AWS::IAM::Role
    Properties:
      ManagedPolicyArns: [!Ref Shared]
      Policies:
        - PolicyName: calls
          PolicyDocument:
            Statement:
              - {Effect: Allow, Action: ["ec2:Describe*"], Resource: "*", Condition: {StringEquals: {aws:RequestedRegion: !Ref DrRegion}}}
              - {Effect: Allow, Action: ec2:CopySnapshot, Resource: !Sub "arn:${AWS::Partition}:ec2:${DrRegion}::snapshot/*", Condition: {StringEquals: {"aws:RequestTag/f": demo}}}
  Shared:
    Type: AWS::IAM::ManagedPolicy
    Properties:
      PolicyDocument:
        Statement: [{Effect: Allow, Action: "secretsmanager:DescribeSecret", Resource: "*"}]
  More:
    Type: AWS::IAM::Policy
    Properties:
      Roles: [!Ref CopyRole]
      PolicyDocument: !Sub '{"Statement": [{"Effect": "Allow", "Action": "ssm:SendCommand", "Resource": "arn:aws:ssm:${AWS::Region}:1:document/x"}]}'
  Copy:
    Type: AWS::Lambda::Function
    Properties:
      FunctionName: !Sub ${NamePrefix}-copy
      Handler: copy
      Role: !GetAtt CopyRole.Arn
      Timeout: 300
      MemorySize: 256
      Environment:
        Variables: {ALL: !Join [",", !Ref Arns], KEY: !GetAtt Key.Arn, GONE: !If [Never, x, !Ref "AWS::NoValue"]}
  Asynchronous:
    Type: AWS::Lambda::EventInvokeConfig
    Properties: {FunctionName: !Ref Copy, Qualifier: $LATEST, MaximumEventAgeInSeconds: 300, MaximumRetryAttempts: 1}
  Other:
    Type: AWS::Lambda::Function
    Properties: {FunctionName: other, Handler: other, Role: !GetAtt CopyRole.Arn}
  Rule:
    Type: AWS::Events::Rule
    Properties:
      EventPattern: {source: [aws.ec2], detail: {event: [createSnapshot]}, account: [!Ref "AWS::AccountId"]}
      Targets: [{Id: f, Arn: !GetAtt Copy.Arn}]
"#;

    fn read_it() -> Vec<Function> {
        let document = Yaml::load_from_str(TEMPLATE).unwrap().remove(0);
        let deployment = Deployment {
            account: "1".into(),
            region: Region::new("us-east-1"),
            parameters: BTreeMap::from([("Arns".into(), json!("a,b")), ("DrRegion".into(), json!("us-west-2"))]),
            resources: BTreeMap::from([("Key".into(), ("id".into(), "arn:key".into()))]),
        };
        functions(&plain(&document).unwrap(), &deployment).unwrap()
    }

    #[test]
    fn a_function_is_what_its_template_says() {
        let all = read_it();
        let [function, other] = all.as_slice() else { panic!("two functions: {all:?}") };
        assert_eq!((function.retries, function.event_age), (1, Duration::from_secs(300)));
        assert_eq!((other.retries, other.event_age), (2, Duration::from_secs(21_600)), "Lambda's own");
        assert_eq!((function.name.as_str(), function.function_name.as_str()), ("copy", "tde2hsm-copy"));
        let environment = BTreeMap::from([("ALL".to_owned(), "a,b".to_owned()), ("KEY".to_owned(), "arn:key".to_owned())]);
        assert_eq!(function.environment, environment);
        let event = json!({"source": "aws.ec2", "account": "1", "detail": {"event": "createSnapshot", "result": "succeeded"}});
        assert!(takes(&function.patterns[0], &event));
        assert!(!takes(
            &function.patterns[0],
            &json!({"source": "aws.ec2", "account": "1", "detail": {"event": "copySnapshot"}})
        ));
        assert!(!takes(&function.patterns[0], &json!({"source": "mine", "account": "1", "detail": {"event": "createSnapshot"}})));
    }

    #[test]
    fn a_role_allows_what_it_names_where_it_names_it() {
        let function = read_it().remove(0);
        let (east, west) = (Region::new("us-east-1"), Region::new("us-west-2"));
        let none = BTreeMap::new();
        let tagged = BTreeMap::from([("f".to_owned(), "demo".to_owned())]);
        let may =
            |action: &str, region: &Region, tags: &BTreeMap<String, String>| permits(&function.statements, action, region, tags);
        assert!(may("ec2:DescribeSnapshots", &west, &none) && !may("ec2:DescribeSnapshots", &east, &none));
        assert!(may("ec2:CopySnapshot", &west, &tagged));
        assert!(!may("ec2:CopySnapshot", &west, &none) && !may("ec2:CopySnapshot", &east, &tagged));
        assert!(may("secretsmanager:DescribeSecret", &east, &none), "a managed policy counts");
        assert!(may("ssm:SendCommand", &east, &none) && !may("ec2:DeleteSnapshot", &west, &tagged));
        let elsewhere = json!({"StringNotEquals": {"aws:RequestedRegion": "us-west-2"}});
        let everything = vec!["*".to_owned()];
        let rule = |deny, condition| Statement {
            deny,
            actions: everything.clone(),
            except: if deny { vec!["ec2:Describe*".to_owned()] } else { Vec::new() },
            resources: everything.clone(),
            condition,
        };
        let confined = [rule(false, Value::Null), rule(true, elsewhere)];
        assert!(permits(&confined, "ec2:DescribeVolumes", &east, &none), "what NotAction names is not denied");
        assert!(permits(&confined, "ec2:RunInstances", &west, &none) && !permits(&confined, "ec2:RunInstances", &east, &none));
    }
}
