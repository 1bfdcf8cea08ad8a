//! A scan that pages by itself, as an iterator.

use crate::client::FAN_OUT;
use crate::client::answer;
use crate::client::blocking::Client;
use crate::client::call::{Ask, Call};
use crate::client::error::{Failure, ScanError};
use crate::client::options::{ScanOptions, ScanRecord};
use crate::client::scan_plan::ScanPlan;

enum State {
    /// Nothing was asked yet.
    New(ScanOptions),
    Running(ScanPlan),
    /// At its end, or failed.
    Ended,
}

/// The records of a scan, in order. Each page is of one instant; the whole scan is not.
pub struct Scanner<'c> {
    client: &'c mut Client,
    table: String,
    state: State,
}

impl<'c> Scanner<'c> {
    pub(super) fn new(client: &'c mut Client, table: &str, options: ScanOptions) -> Scanner<'c> {
        Scanner { client, table: table.to_owned(), state: State::New(options) }
    }

    fn try_next(&mut self) -> Result<Option<ScanRecord>, ScanError> {
        if let State::New(options) = &self.state {
            let table = self.client.table(&self.table)?;
            self.state = State::Running(ScanPlan::new(table.routes(), options)?);
        }
        let State::Running(plan) = &mut self.state else { return Ok(None) };
        while !plan.hungry().is_empty() {
            feed(self.client, &self.table, plan)?;
        }
        Ok(plan.pop())
    }
}

impl Iterator for Scanner<'_> {
    type Item = Result<ScanRecord, ScanError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.try_next();
        if !matches!(next, Ok(Some(_))) {
            self.state = State::Ended;
        }
        next.transpose()
    }
}

/// Fetches a page for some of the hungry lanes.
fn feed(client: &mut Client, table: &str, plan: &mut ScanPlan) -> Result<(), Failure> {
    let lanes: Vec<usize> = plan.hungry().iter().copied().take(FAN_OUT).collect();
    let ask = |lane: &usize| {
        let (partition, view) = plan.page_of(*lane);
        Call::on_partition(table, partition, Ask::Scan(view))
    };
    let calls: Vec<Call<'_>> = lanes.iter().map(ask).collect();
    let replies = client.runner.run(&calls);
    drop(calls);
    for (lane, reply) in lanes.iter().zip(replies) {
        plan.feed(*lane, answer::of_page(&reply?)?)?;
    }
    Ok(())
}
