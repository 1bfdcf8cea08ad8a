//! Objectives as OpenSLO documents, so that what was promised can be watched by other tools.
//! <https://github.com/OpenSLO/OpenSLO>, version openslo/v1.

use super::slo::{SloReport, Verdict};
use crate::workload::Operation;

/// One document for each kind of requests that has objectives: the kind's name, and the text.
pub fn documents(report: &SloReport) -> Vec<(&'static str, String)> {
    Operation::ALL
        .into_iter()
        .filter_map(|operation| {
            let verdicts: Vec<&Verdict> =
                report.verdicts.iter().filter(|verdict| verdict.operation == operation).collect();
            (!verdicts.is_empty()).then(|| (operation.name(), document(operation, &verdicts)))
        })
        .collect()
}

fn document(operation: Operation, verdicts: &[&Verdict]) -> String {
    let name = operation.name();
    let mut text = format!(
        "apiVersion: openslo/v1\n\
         kind: SLO\n\
         metadata:\n\
         \x20 name: lode-{name}-latency\n\
         \x20 displayName: Latency of {name} requests\n\
         spec:\n\
         \x20 description: Shares of {name} requests that lode answers within a time. A request that fails is too late.\n\
         \x20 service: lode\n\
         \x20 indicator:\n\
         \x20   metadata:\n\
         \x20     name: lode-{name}-within-time\n\
         \x20   spec:\n\
         \x20     thresholdMetric:\n\
         \x20       metricSource:\n\
         \x20         type: lode-bench\n\
         \x20         spec:\n\
         \x20           histogram: {name}\n\
         \x20           unit: ms\n\
         \x20 timeWindow:\n\
         \x20   - duration: 28d\n\
         \x20     isRolling: true\n\
         \x20 budgetingMethod: Occurrences\n\
         \x20 objectives:\n"
    );
    for verdict in verdicts {
        text += &format!(
            "    - displayName: \"{}\"\n      op: lte\n      value: {}\n      target: {}\n",
            verdict.objective,
            verdict.within_us / 1000.0,
            // 99.9 % is 0.999, and not 0.9990000000000001.
            (verdict.percent * 1e6).round() / 1e8,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_has_what_the_specification_asks_for() {
        let verdict = |objective: &str, percent: f64, within_us: f64| Verdict {
            objective: objective.to_owned(),
            operation: Operation::Get,
            percent,
            within_us,
            requests: 1,
            missed: 0,
            seen_us: Some(1.0),
            burn: 0.0,
            holds: true,
        };
        let (one, two) = (verdict("get:p99.9<1ms", 99.9, 1000.0), verdict("get:p50<250us", 50.0, 250.0));
        let text = document(Operation::Get, &[&one, &two]);
        for part in [
            "apiVersion: openslo/v1\nkind: SLO\nmetadata:\n  name: lode-get-latency\n",
            "  budgetingMethod: Occurrences\n  objectives:\n    - displayName: \"get:p99.9<1ms\"\n      op: lte\n      value: 1\n      target: 0.999\n",
            "      value: 0.25\n      target: 0.5\n",
        ] {
            assert!(text.contains(part), "{part}\n in \n{text}");
        }
    }
}
