//! Metrics in CloudWatch's embedded format: lines of the log that CloudWatch reads as metrics, so that a function needs no
//! call and no permission for them.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use tde2hsm_dr_driver::{Metric, Outcome, Unit};

pub const NAMESPACE: &str = "tde2hsm";
/// The most metrics that one line may define.
const METRICS_A_LINE: usize = 100;

/// One line for each set of dimensions: a metric's name can stand in a line only once.
pub fn lines(outcome: &Outcome, fleet: &str) -> Vec<String> {
    let mut by_dimensions: BTreeMap<&BTreeMap<String, String>, Vec<&Metric>> = BTreeMap::new();
    for metric in &outcome.metrics {
        by_dimensions.entry(&metric.dimensions).or_default().push(metric);
    }
    let chunks =
        by_dimensions.iter().flat_map(|(dimensions, metrics)| metrics.chunks(METRICS_A_LINE).map(|chunk| (*dimensions, chunk)));
    chunks.map(|(dimensions, metrics)| line(outcome, fleet, dimensions, metrics)).collect()
}

fn line(outcome: &Outcome, fleet: &str, dimensions: &BTreeMap<String, String>, metrics: &[&Metric]) -> String {
    let mut names = vec!["fleet".to_owned()];
    names.extend(dimensions.keys().cloned());
    let defined: Vec<Value> = metrics.iter().map(|metric| json!({"Name": metric.name, "Unit": unit(metric.unit)})).collect();
    let mut root = Map::new();
    root.insert(
        "_aws".to_owned(),
        json!({
            "Timestamp": outcome.at.0.saturating_mul(1_000),
            "CloudWatchMetrics": [{"Namespace": NAMESPACE, "Dimensions": [names], "Metrics": defined}],
        }),
    );
    root.insert("fleet".to_owned(), json!(fleet));
    // No dimension: what a function did is told by the metric's name.
    root.insert("function".to_owned(), json!(outcome.job.name()));
    root.extend(dimensions.iter().map(|(key, value)| (key.clone(), json!(value))));
    root.extend(metrics.iter().map(|metric| (metric.name.clone(), json!(metric.value))));
    Value::Object(root).to_string()
}

fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Count => "Count",
        Unit::Seconds => "Seconds",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tde2hsm_dr_driver::Job;
    use tde2hsm_protocol::Timestamp;

    #[test]
    fn a_line_defines_what_it_holds() {
        let mut outcome = Outcome::new(Job::AuditRecovery, Timestamp(1_795_500_000));
        let metric = |name: &str, value, database: Option<&str>| Metric {
            name: name.to_owned(),
            unit: Unit::Seconds,
            value,
            dimensions: database.map(|sid| ("database".to_owned(), sid.to_owned())).into_iter().collect(),
        };
        outcome.metrics = vec![
            metric("RecoveryPointAge", 60.0, None),
            metric("RecoveryPointAge", 60.0, Some("A")),
            metric("RecoveryPointAge", 30.0, Some("B")),
        ];
        let lines: Vec<Value> = lines(&outcome, "demo").iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3);
        for line in &lines {
            let directive = &line["_aws"]["CloudWatchMetrics"][0];
            assert_eq!(line["_aws"]["Timestamp"], 1_795_500_000_000_i64);
            assert_eq!(directive["Namespace"], NAMESPACE);
            for name in directive["Dimensions"][0].as_array().unwrap() {
                assert!(line[name.as_str().unwrap()].is_string(), "a dimension is a string of the line: {line}");
            }
            for defined in directive["Metrics"].as_array().unwrap() {
                assert!(line[defined["Name"].as_str().unwrap()].is_number(), "{line}");
            }
        }
        assert_eq!(lines[2]["database"], "B");
        assert_eq!(lines[2]["RecoveryPointAge"], 30.0);
    }
}
