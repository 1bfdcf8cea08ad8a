//! The report as one page that needs nothing else: light and dark, on a phone and in print.

use std::fmt::Write;

use super::plot::{Axis, Mark, Scale, Series, escape, plot, short, time};
use super::slo::{ACT_MS, Class, SloReport, Split, Verdict};
use crate::search::Probe;

const STYLE: &str = include_str!("page.css");

/// The whole page. `probes` are what a search has tried, if this is the report of one.
pub fn page(report: &SloReport, probes: &[Probe]) -> String {
    let mut html = format!(
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>\n\
         <meta name=viewport content=\"width=device-width, initial-scale=1\">\n\
         <meta name=color-scheme content=\"light dark\">\n\
         <title>lode: {} of {}</title>\n<style>{STYLE}</style></head><body><main>\n",
        if report.holds { "objectives hold" } else { "objectives missed" },
        escape(&report.run.workload),
    );
    html += &head(report);
    html += &verdicts(report);
    html += &latencies(report);
    html += &plots(report, probes);
    html += &worst(report);
    html += &time_and_device(report);
    html += &troubles(report);
    html += &fingerprint(report);
    html + "</main></body></html>\n"
}

fn head(report: &SloReport) -> String {
    let run = &report.run;
    let (class, word) = if report.holds { ("good", "Objectives hold") } else { ("bad", "Objectives missed") };
    let offered = match run.offered_per_s {
        Some(offered) => format!("{} offered, ", short(offered)),
        None => String::new(),
    };
    let mut html = format!(
        "<header class={class}><p class=kicker>lode · latency report · {}</p><h1>{word}</h1>\n\
         <p class=lead>{offered}<b>{} requests/s</b> achieved over {} s · {} · {} distribution · {} records of {} B · \
         {} × {} in flight, {} loop</p></header>\n",
        made_at(report.made_at_s),
        short(run.ops_per_s),
        short(run.seconds),
        escape(&run.mix),
        run.distribution,
        short(run.records as f64),
        escape(&run.value_size),
        run.connections,
        run.depth,
        run.mode,
    );
    if run.lagged {
        html += "<p class=warn>The generator lagged: it was late by itself, or short of CPU. These latencies are not the server's alone; \
                 give it a machine of its own, or offer less.</p>\n";
    }
    html
}

fn verdicts(report: &SloReport) -> String {
    let mut html = String::from("<section><h2>Objectives</h2>\n");
    if report.verdicts.is_empty() {
        html += "<p>None was set for what this load asks.</p>\n";
    }
    html += "<div class=cards>";
    for verdict in &report.verdicts {
        html += &card(verdict);
    }
    html + "</div></section>\n"
}

fn card(verdict: &Verdict) -> String {
    let (class, word) = if verdict.holds { ("good", "holds") } else { ("bad", "missed") };
    let seen = match verdict.seen_us {
        Some(us) => time(us),
        None => "a failure".to_owned(),
    };
    format!(
        "<div class=\"card {class}\"><h3>{}</h3><p class=big>{word}</p>\
         <p>p{} was {seen}; {} of {} were late or failed</p>\
         <p class=burn><span style=\"width:{:.1}%\"></span></p><p>error budget burnt: {}×</p></div>\n",
        escape(&verdict.objective),
        verdict.percent,
        verdict.missed,
        verdict.requests,
        (verdict.burn * 100.0).clamp(0.0, 100.0),
        short(verdict.burn),
    )
}

fn latencies(report: &SloReport) -> String {
    let mut html = String::from(
        "<section><h2>Latency</h2><div class=wide><table><thead><tr><th>requests<th>count<th>p50<th>p90<th>p99\
         <th>p99.9<th>p99.99<th>longest<th>failed",
    );
    for ms in ACT_MS {
        let _ = write!(html, "<th>over {ms} ms");
    }
    html += "</thead><tbody>\n";
    for class in &report.classes {
        html += &row(class);
    }
    html + "</tbody></table></div><p class=note>From when a request was due to when its answer was read. Failures count as over every limit.</p></section>\n"
}

fn row(class: &Class) -> String {
    let us = &class.us;
    let mut html = format!("<tr><th>{}<td>{}", class.operation.name(), us.count);
    for value in [us.p50, us.p90, us.p99, us.p999, us.p9999, us.max] {
        let _ = write!(html, "<td>{}", time(value));
    }
    let _ = write!(html, "<td>{}", class.errors);
    for share in class.above_percent {
        let _ = write!(html, "<td>{share:.3} %");
    }
    html + "\n"
}

fn plots(report: &SloReport, probes: &[Probe]) -> String {
    let log = Axis { name: "latency", scale: Scale::Log };
    let marks: Vec<Mark> = report
        .verdicts
        .iter()
        .map(|verdict| Mark { at: verdict.within_us, name: verdict.objective.clone() })
        .collect();
    let curves: Vec<Series<'_>> = report
        .classes
        .iter()
        .map(|class| Series { name: class.operation.name(), points: class.curve.clone(), is_line: true })
        .collect();
    let nines = Axis { name: "share of requests", scale: Scale::Nines };
    let mut html = String::from("<section><h2>Percentiles</h2>\n");
    html += &plot("Latency by percentile", &nines, &log, &curves, &marks);
    html += "</section><section><h2>Over time</h2>\n";
    let over = |of: fn(&super::slo::SliceRow) -> f64| {
        report
            .slices
            .iter()
            .filter(|slice| slice.ops_per_s > 0.0)
            .map(|slice| (slice.at_s, of(slice)))
            .collect()
    };
    let seconds = Axis { name: "seconds", scale: Scale::Linear };
    let lines = [
        Series { name: "p50", points: over(|slice| slice.p50_us), is_line: true },
        Series { name: "p99", points: over(|slice| slice.p99_us), is_line: true },
        Series { name: "longest", points: over(|slice| slice.max_us), is_line: false },
    ];
    html += &plot("Latency over time", &seconds, &log, &lines, &[]);
    html += "</section><section><h2>Latency against throughput</h2>\n";
    let rate = Axis { name: "requests per second", scale: Scale::Linear };
    let (points, name): (Vec<(f64, f64)>, &str) = if probes.is_empty() {
        (
            report
                .slices
                .iter()
                .filter(|slice| slice.ops_per_s > 0.0)
                .map(|slice| (slice.ops_per_s, slice.p99_us))
                .collect(),
            "p99 of a slice",
        )
    } else {
        (probes.iter().map(|probe| (probe.ops_per_s, probe.p99_us)).collect(), "p99 of a rate that was tried")
    };
    html += &plot("Latency against throughput", &rate, &log, &[Series { name, points, is_line: false }], &[]);
    html + "</section>\n"
}

fn worst(report: &SloReport) -> String {
    let mut html = String::from("<section><h2>The worst</h2>\n");
    if let Some(place) = report.worst_slice {
        let slice = &report.slices[place];
        let _ = writeln!(
            html,
            "<p>Worst slice of {} s: from second {} on, p99 {}, longest {}, {} requests/s, {} failed.</p>",
            short(report.slice_s),
            short(slice.at_s),
            time(slice.p99_us),
            time(slice.max_us),
            short(slice.ops_per_s),
            slice.errors,
        );
    }
    if let Some(first) = report.worst_partitions.first() {
        let _ = write!(
            html,
            "<p>Worst of {} partitions: <b>{}</b>, p99 {}.</p>\n<div class=wide><table><thead><tr><th>partition<th>requests<th>failed<th>p50<th>p99</thead><tbody>\n",
            report.partitions,
            escape(&first.name),
            time(first.p99_us),
        );
        for partition in &report.worst_partitions {
            let _ = writeln!(
                html,
                "<tr><th>{}<td>{}<td>{}<td>{}<td>{}",
                escape(&partition.name),
                partition.requests,
                partition.errors,
                time(partition.p50_us),
                time(partition.p99_us),
            );
        }
        html += "</tbody></table></div>\n";
    }
    html + "</section>\n"
}

fn time_and_device(report: &SloReport) -> String {
    let mut html = String::from("<section><h2>Where the time goes</h2>\n");
    match &report.split {
        Some(split) => html += &split_bar(split),
        None => html += "<p>This server does not tell.</p>\n",
    }
    html += "</section><section><h2>Server and drive</h2><dl>\n";
    let (device, node) = (&report.device, &report.run.node);
    let number = |value: Option<f64>| value.map_or("–".to_owned(), short);
    let percent = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.1} %"));
    let rows = [
        ("CPU of the server per request", report.run.server_cpu_us_per_op.map_or("–".to_owned(), time)),
        ("CPU of the generator per request", time(report.run.client_cpu_us_per_op)),
        ("drive operations per second", short(device.operations_per_s)),
        ("in flight on average", number(device.in_flight)),
        ("mean time of one", device.operation_us.map_or("–".to_owned(), time)),
        ("fill, of the most live bytes", percent(device.fill_percent)),
        ("GETs that memory answered", percent(device.cache_hit_percent)),
        ("device reads per GET", number(node.device_reads_per_get)),
        ("write amplification", number(node.write_amplification)),
        ("of it cleaning", number(node.cleaning_amplification)),
    ];
    for (name, value) in rows {
        let _ = writeln!(html, "<dt>{name}<dd>{value}");
    }
    html + "</dl></section>\n"
}

fn split_bar(split: &Split) -> String {
    let parts = [
        ("waiting in the generator", split.generator),
        ("network and kernels", split.network),
        ("waiting in the node", split.queue),
        ("drive", split.device),
        ("CPU of the node", split.cpu),
    ];
    let whole: f64 = parts.iter().map(|part| part.1).sum::<f64>().max(1e-9);
    let mut html = String::from("<div class=bar role=img aria-label=\"Parts of the mean latency\">");
    for (number, (_, us)) in parts.iter().enumerate() {
        let _ = write!(html, "<span class=k{number} style=\"width:{:.2}%\"></span>", us * 100.0 / whole);
    }
    html += "</div><p class=keys>";
    for (number, (name, us)) in parts.iter().enumerate() {
        let _ = write!(html, "<span class=key><i class=k{number}></i>{name} {}</span> ", time(*us));
    }
    html + "</p><p class=note>Of the mean request, by Little's law; the drive's part is the mean time of its operations.</p>\n"
}

fn troubles(report: &SloReport) -> String {
    let troubles = report.run.troubles();
    if troubles.is_empty() {
        return String::from("<section><h2>Failures</h2><p>None.</p></section>\n");
    }
    let mut html = String::from("<section><h2>Failures</h2><ul>\n");
    for (what, count) in troubles {
        let _ = writeln!(html, "<li>{count} {what}");
    }
    if let Some(refusal) = &report.run.refusal {
        let _ = writeln!(html, "<li>the last refusal: {}", escape(refusal));
    }
    html + "</ul></section>\n"
}

/// A moment in UTC.
fn made_at(since_1970_s: u64) -> String {
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(since_1970_s);
    humantime::format_rfc3339_seconds(at).to_string()
}

fn fingerprint(report: &SloReport) -> String {
    let print = &report.fingerprint;
    let mut html = String::from("<section><h2>Measured on</h2><dl>\n");
    let machine = format!(
        "{} × {}, {} bytes of memory",
        print.cores,
        print.processor,
        short(print.memory_bytes as f64)
    );
    let rows = [
        ("generator", format!("lode-bench {}", print.version)),
        ("its machine", machine),
        ("its kernel", print.kernel.clone()),
        ("server", print.addr.clone()),
        ("seed", report.run.seed.to_string()),
        ("made", made_at(report.made_at_s)),
    ];
    for (name, value) in rows {
        let _ = writeln!(html, "<dt>{name}<dd>{}", escape(&value));
    }
    for (part, value) in
        [("node", &print.node), ("drive", &print.drive), ("memory", &print.memory), ("ring", &print.ring)]
    {
        for (name, value) in value.as_object().into_iter().flatten() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let _ = writeln!(html, "<dt>{part} {}<dd>{}", escape(&name.replace('_', " ")), escape(&value));
        }
    }
    html + "</dl></section>\n"
}
