use super::*;
pub(super) fn build(_input: &PlanInput<'_>) -> Result<Plan, PlanError> {
    Err(PlanError::Refused { findings: Vec::new() })
}
pub(super) fn targets(_fleet: &Fleet, _facts: &CloudFacts) -> Vec<InstanceId> {
    Vec::new()
}
