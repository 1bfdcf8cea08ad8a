//! `table create`, `table drop` and `table list`.

use lode_net::client::{Placement, Store, TableError, TableInfo, TableOptions};
use lode_net::wire::control::PlacementKind;
use serde_json::{Value, json};

use super::args::{CreateArgs, NewTableArgs, PlacementName, QuotaArgs, StoreName, TableCommand};
use super::data::Words;
use super::exit::{Exit, Failure};
use super::output::{Output, Style};
use super::quota::{self, Quotas};
use super::session::Session;
use super::size::{Size, Span};
use crate::config::TableDefaults;

/// Does one of the `table` commands.
pub fn run(command: &TableCommand, session: &Session, words: Words, out: &mut Output) -> Result<(), Failure> {
    match command {
        TableCommand::Create(args) => create(args, session, words, out),
        TableCommand::Drop(args) => {
            session.wait(session.client.drop_table(&args.table))?;
            out.done(&format!("OK dropped {}", args.table), &json!({ "ok": true, "dropped": args.table }))
        }
        TableCommand::Set(args) => quota::set(args, session, words, out),
        TableCommand::Show(args) => show(&args.table, session, out),
        TableCommand::List => list(session, out),
    }
}

fn create(args: &CreateArgs, session: &Session, words: Words, out: &mut Output) -> Result<(), Failure> {
    let splits = args.splits.iter().map(|split| words.bytes(split)).collect::<Result<Vec<_>, _>>()?;
    let info = session.block_on(make(&args.table, &args.options, splits, args.ttl, &args.quota, session))?;
    match out.style() {
        Style::Json => out.json(&as_json(&info)),
        Style::Plain | Style::Shell => {
            out.line(&format!("OK {}: {}, {} partitions", info.name, kind(&info), info.partitions))
        }
    }
}

/// Makes a table; what is left open is as the node's defaults say.
pub async fn make(
    name: &str,
    wanted: &NewTableArgs,
    splits: Vec<Vec<u8>>,
    ttl: Option<Span>,
    quota: &QuotaArgs,
    session: &Session,
) -> Result<TableInfo, Failure> {
    let defaults = node_defaults(&session.client.stats().await?);
    let mut options = options_of(name, wanted, splits, &defaults)?;
    options.ttl = ttl.map(|ttl| ttl.0);
    options.quota = quota.over(options.quota);
    Ok(session.client.create_table(options).await?)
}

/// What the node says that a new table is like.
fn node_defaults(stats: &Value) -> TableDefaults {
    let told = stats.get("table_defaults").cloned().and_then(|value| serde_json::from_value(value).ok());
    told.unwrap_or_default()
}

fn options_of(
    name: &str,
    wanted: &NewTableArgs,
    splits: Vec<Vec<u8>>,
    defaults: &TableDefaults,
) -> Result<TableOptions, Failure> {
    let store = match wanted.store.unwrap_or(defaults.store) {
        StoreName::Durable => Store::Durable,
        StoreName::Memory => Store::Memory,
        StoreName::Compact => Store::Compact,
    };
    let by_default = if splits.is_empty() { defaults.placement } else { PlacementName::Range };
    let placement = match (wanted.placement.unwrap_or(by_default), wanted.partitions) {
        (PlacementName::Hash, _) if !splits.is_empty() => {
            return Err(Failure::new(Exit::Usage, "--split goes with --placement range"));
        }
        (PlacementName::Hash, partitions) => {
            Placement::Hash { partitions: partitions.unwrap_or(defaults.partitions) }
        }
        (PlacementName::Range, Some(partitions)) => Placement::Range { splits: even_splits(partitions) },
        (PlacementName::Range, None) => Placement::Range { splits },
    };
    Ok(TableOptions { name: name.to_owned(), store, placement, ttl: None, quota: defaults.quota() })
}

/// Splits that cut the keys' first four bytes evenly.
fn even_splits(partitions: u32) -> Vec<Vec<u8>> {
    let cut = |part: u32| (u64::from(part) << 32) / u64::from(partitions);
    (1..partitions).map(|part| (cut(part) as u32).to_be_bytes().to_vec()).collect()
}

fn list(session: &Session, out: &mut Output) -> Result<(), Failure> {
    let tables = session.wait(session.client.list_tables())?;
    let ttls = session.wait(session.client.table_ttls())?;
    let quotas = Quotas::of(session)?;
    let ttl_of = |table: &TableInfo| ttls.iter().find(|(id, _)| *id == table.id).map(|(_, ttl)| *ttl);
    if out.style() == Style::Json {
        let with_ttl = |table: &TableInfo| {
            let mut object = as_json(table);
            object["ttl_ms"] = ttl_of(table).map(|ttl| ttl.as_millis() as u64).into();
            object["quota"] = quota::as_json(&quotas.of_table(table.id));
            object["partition_quotas"] = quota::partitions_as_json(&quotas, table);
            object
        };
        return out.json(&tables.iter().map(with_ttl).collect());
    }
    if tables.is_empty() {
        return out.line("(no tables; make one with: lode table create NAME)");
    }
    let width = tables.iter().map(|table| table.name.chars().count()).max().unwrap_or(0).max(5);
    out.line(&format!(
        "{:width$}  {:14}  {:>10}  {:>14}  {:>10}  {:>10}  quota of a partition",
        "table", "kind", "partitions", "records", "bytes", "ttl"
    ))?;
    for table in &tables {
        out.line(&format!(
            "{:width$}  {:14}  {:>10}  {:>14}  {:>10}  {:>10}  {}",
            table.name,
            kind(table),
            table.partitions,
            table.records,
            Size(table.bytes).to_string(),
            ttl_of(table).map_or("-".to_owned(), |ttl| Span(ttl).to_string()),
            quota::in_words(&quotas.of_table(table.id))
        ))?;
    }
    Ok(())
}

/// The table of this name; asks the node.
pub fn find(name: &str, session: &Session) -> Result<TableInfo, Failure> {
    let mut tables = session.wait(session.client.list_tables())?.into_iter();
    let found = tables.find(|table| table.name == name);
    found.ok_or_else(|| TableError::UnknownTable(name.to_owned()).into())
}

/// `table show`.
fn show(name: &str, session: &Session, out: &mut Output) -> Result<(), Failure> {
    let table = find(name, session)?;
    let ttls = session.wait(session.client.table_ttls())?;
    let ttl = ttls.iter().find(|(id, _)| *id == table.id).map(|(_, ttl)| *ttl);
    let quotas = Quotas::of(session)?;
    let quota = quotas.of_table(table.id);
    if out.style() == Style::Json {
        let mut object = as_json(&table);
        object["ttl_ms"] = ttl.map(|ttl| ttl.as_millis() as u64).into();
        object["quota"] = quota::as_json(&quota);
        object["partition_quotas"] = quota::partitions_as_json(&quotas, &table);
        return out.json(&object);
    }
    let (kind, partitions, records) = (kind(&table), table.partitions, table.records);
    out.line(&format!("{name}: {kind}, {partitions} partitions, {records} records, {}", Size(table.bytes)))?;
    out.line(&format!("records live {}", ttl.map_or("for ever".to_owned(), |ttl| Span(ttl).to_string())))?;
    out.line(&format!("each partition: {}", quota::in_words(&quota)))?;
    quotas
        .of_partitions(table.id)
        .try_for_each(|(id, quota)| out.line(&format!("partition {id}: {}", quota::in_words(&quota))))
}

fn kind(table: &TableInfo) -> String {
    format!("{} {}", store_name(table), placement_name(table))
}

fn store_name(table: &TableInfo) -> &'static str {
    match table.store {
        Store::Durable => "durable",
        Store::Memory => "memory",
        Store::Compact => "compact",
    }
}

fn placement_name(table: &TableInfo) -> &'static str {
    match table.placement {
        PlacementKind::Hash => "hash",
        PlacementKind::Range => "range",
    }
}

fn as_json(table: &TableInfo) -> Value {
    json!({
        "id": table.id,
        "name": table.name,
        "store": store_name(table),
        "placement": placement_name(table),
        "partitions": table.partitions,
        "records": table.records,
        "bytes": table.bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_even_and_ascending() {
        assert!(even_splits(1).is_empty());
        assert_eq!(even_splits(2), [[0x80, 0, 0, 0]]);
        assert_eq!(even_splits(4), [[0x40, 0, 0, 0], [0x80, 0, 0, 0], [0xc0, 0, 0, 0]]);
        assert!(even_splits(100_000).is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn what_is_left_open_is_as_the_node_says() {
        let stats = json!({ "table_defaults": { "store": "memory", "partitions": 7 } });
        let defaults = node_defaults(&stats);
        let options = options_of("t", &NewTableArgs::default(), Vec::new(), &defaults).unwrap();
        assert!(matches!(options.store, Store::Memory));
        assert!(matches!(options.placement, Placement::Hash { partitions: 7 }));
        let wanted = NewTableArgs { store: Some(StoreName::Durable), ..NewTableArgs::default() };
        let options = options_of("t", &wanted, vec![b"m".to_vec()], &defaults).unwrap();
        assert!(matches!(options.store, Store::Durable));
        assert!(matches!(options.placement, Placement::Range { splits } if splits == [b"m".to_vec()]));
    }
}
