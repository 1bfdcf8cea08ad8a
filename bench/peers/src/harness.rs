//! The turns: in each round each peer is started, measured at every point, and ended.

use crate::Ended;
use crate::figures::{self, Setting, Turn};
use crate::limit::{Groups, MemoryLimit};
use crate::options::{RunOptions, TableOptions};
use crate::peers::{self, Peer};
use crate::points::Point;
use crate::subject::{Start, Subject};
use crate::table::Table;

/// Beside the peers' directories: every turn, one a line.
const TURNS: &str = "turns.jsonl";

/// A peer that takes part.
struct Player {
    // Before its limit: a group goes only when its processes have.
    subject: Option<Subject>,
    limit: Option<MemoryLimit>,
    peer: Peer,
    /// Why it takes part no more.
    failed: Option<String>,
}

/// Measures, and gives the table of this run and of those before it in the same directory.
pub fn run(options: &RunOptions) -> Result<String, Ended> {
    std::fs::create_dir_all(&options.dir)?;
    let groups = find_groups(options)?;
    let setting = Setting::new(options, groups.as_ref().map(|groups| groups.name().to_owned()));
    let file = options.dir.join(TURNS);
    let before = if file.exists() { figures::read(std::slice::from_ref(&file))? } else { Vec::new() };
    if before.first().is_some_and(|turn| turn.setting != setting) {
        return Err(figures::TurnsError::OtherSetting(file).into());
    }
    let mut players = Vec::new();
    for peer in peers::chosen(options) {
        let failed = peer.is_missing();
        if let Some(why) = &failed {
            eprintln!("{}: left out: {why}", peer.name);
        }
        let mut limit = None;
        if let (Some(groups), true, None) = (&groups, peer.is_limited(), &failed) {
            limit = Some(groups.limit(&peer.name, options.memory)?);
        }
        players.push(Player { subject: None, limit, peer, failed });
    }
    players.iter_mut().filter(|player| player.failed.is_none()).for_each(|player| player.load(options));
    let first = before.iter().map(|turn| turn.round).max().unwrap_or(0) + 1;
    for round in first..first + u32::from(options.rounds) {
        for player in &mut players {
            eprintln!("round {round}: {}", player.peer.name);
            for turn in player.turn(options, &setting, round) {
                figures::append(&file, &turn)?;
            }
        }
    }
    drop(players);
    let turns = if file.exists() { figures::read(&[file])? } else { Vec::new() };
    Ok(print(&Table::new(turns), options.json))
}

/// The table of what was measured before.
pub fn table(options: &TableOptions) -> Result<String, Ended> {
    Ok(print(&Table::new(figures::read(&options.turns)?), options.json))
}

fn print(table: &Table, json: bool) -> String {
    if json {
        serde_json::to_string_pretty(table).expect("a table is plain data") + "\n"
    } else {
        table.to_text()
    }
}

/// `None` where there is no limit, and none is insisted on.
fn find_groups(options: &RunOptions) -> Result<Option<Groups>, Ended> {
    // One is made on trial: where the first fails, all would.
    let groups = Groups::find(options.cgroup.as_deref());
    match groups.and_then(|groups| groups.limit("trial", options.memory).map(|_| groups)) {
        Ok(groups) => Ok(Some(groups)),
        Err(error) if options.unlimited => {
            eprintln!("memory is not limited: {error}");
            Ok(None)
        }
        Err(error) => Err(format!(
            "memory cannot be limited: {error}; with --unlimited the page cache of the whole machine serves those \
             that use it, and not lode nor RocksDB"
        )
        .into()),
    }
}

impl Player {
    fn start(&mut self, options: &RunOptions) -> Result<&mut Subject, String> {
        if self.subject.is_none() {
            let start = Start { peer: &self.peer, options, limit: self.limit.as_ref() };
            self.subject = Some(start.start().map_err(|error| error.to_string())?);
        }
        self.subject.as_mut().ok_or_else(|| "it does not run".to_owned())
    }

    /// Ends it, unless it stays up.
    fn rest(&mut self) {
        if !self.peer.stays_up() {
            self.subject = None;
        }
    }

    fn load(&mut self, options: &RunOptions) {
        eprintln!("loading {}", self.peer.name);
        let loaded =
            self.start(options).and_then(|subject| subject.load(options).map_err(|error| error.to_string()));
        if let Err(why) = loaded {
            eprintln!("{}: left out: {why}", self.peer.name);
            self.failed = Some(why);
            self.subject = None;
        }
        self.rest();
    }

    fn turn(&mut self, options: &RunOptions, setting: &Setting, round: u32) -> Vec<Turn> {
        let points: Vec<Point> = if options.points.is_empty() {
            <Point as clap::ValueEnum>::value_variants().to_vec()
        } else {
            options.points.clone()
        };
        let mut turns = Vec::new();
        let seed = options.seed.wrapping_add(1000 * u64::from(round));
        for point in points {
            if !self.peer.can(point) {
                continue;
            }
            let outcome = match &self.failed {
                Some(why) => Err(why.clone()),
                None => self.start(options).and_then(|subject| {
                    subject.measure(options, point, seed).map_err(|error| error.to_string())
                }),
            };
            if let (Err(why), None) = (&outcome, &self.failed) {
                eprintln!("{}, {}: {why}", self.peer.name, point.name());
            }
            let (peer, durable) = (self.peer.name.clone(), self.peer.durable.to_owned());
            turns.push(Turn { setting: setting.clone(), peer, durable, round, point, outcome });
        }
        self.rest();
        turns
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;
    use crate::options::{Arguments, Command};

    fn run_on(dir: &Path, peers: &str) -> Table {
        let line = format!(
            "lode-peers run --records 2000 --value-size 100 --memory 64MiB --clients 2 --duration 100ms --warmup 0s \
             --rounds 1 --unlimited --peers {peers} --dir {}",
            dir.display()
        );
        let Command::Run(options) = Arguments::parse_from(line.split_whitespace()).command else {
            panic!("the verb is run");
        };
        run(&options).unwrap();
        Table::new(figures::read(&[options.dir.join(TURNS)]).unwrap())
    }

    #[test]
    fn who_cannot_be_started_is_named_with_why_and_rounds_go_on() {
        let home = tempfile::tempdir().unwrap();
        // No drive of lode's is there to be read.
        let table = run_on(home.path(), "floor-reads");
        assert!(table.to_text().contains("no drive of lode's"), "{}", table.to_text());
        run_on(home.path(), "floor-reads");
        let turns = figures::read(&[home.path().join(TURNS)]).unwrap();
        assert_eq!(turns.iter().map(|turn| turn.round).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn turns_of_another_setting_are_refused() {
        let home = tempfile::tempdir().unwrap();
        run_on(home.path(), "floor-reads");
        let file = home.path().join(TURNS);
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace("\"records\":2000", "\"records\":1999")).unwrap();
        let (one, other) = (file.clone(), home.path().join("other"));
        std::fs::write(&other, text).unwrap();
        assert!(figures::read(&[one, other]).unwrap_err().to_string().contains("another setting"));
    }
}
