//! `lode config`: what a node would be told, and by whom.

use serde_json::{Map, Value, json};

use super::args::ConfigArgs;
use super::exit::{Exit, Failure};
use super::output::{Output, Style};
use crate::config::layers::{Layers, Origin};

/// Where the origin stands, in characters from the line's begin, unless the value is longer.
const ORIGIN_COLUMN: usize = 44;

/// Prints every option; as text, what it prints is a configuration file that says the same.
pub fn run(args: &ConfigArgs, out: &mut Output) -> Result<(), Failure> {
    let wrong = |error| Failure::new(Exit::Usage, error);
    let layers = Layers::gather(&args.options, args.config.as_deref()).map_err(wrong)?;
    if out.style() == Style::Json {
        let row = |(name, value, origin): (&str, Value, Origin)| {
            let mut told = json!({ "value": value, "from": origin.word() });
            match origin {
                Origin::File { path, line } => {
                    told["file"] = path.into();
                    told["line"] = line.into();
                }
                Origin::Environment(variable) => told["variable"] = variable.into(),
                Origin::Default | Origin::Flag => {}
            }
            (name.to_owned(), told)
        };
        let options: Map<String, Value> = layers.effective().into_iter().map(row).collect();
        return out.json(&Value::Object(options));
    }
    for (name, value, origin) in layers.effective() {
        let said = match value {
            Value::Null => format!("# {name}: as the node finds best"),
            value => format!("{name} = {value}"),
        };
        out.line(&format!("{said:<ORIGIN_COLUMN$}  # {}", origin.place()))?;
    }
    Ok(())
}
