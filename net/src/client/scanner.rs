//! A scan on tokio that pages by itself.

use std::sync::Arc;

use crate::client::call::{Ask, Call};
use crate::client::error::{Failure, ScanError};
use crate::client::options::{ScanOptions, ScanRecord};
use crate::client::scan_plan::ScanPlan;
use crate::client::{Client, answer};
use crate::wire::{PartitionId, RangeView, ScanView};

enum State {
    /// Nothing was asked yet.
    New(ScanOptions),
    Running(ScanPlan),
    /// At its end, or failed.
    Ended,
}

/// The records of a scan, in order. Each page is of one instant; the whole scan is not.
pub struct Scanner {
    client: Client,
    table: Arc<str>,
    state: State,
}

impl Scanner {
    pub(crate) fn new(client: Client, table: &str, options: ScanOptions) -> Scanner {
        Scanner { client, table: table.into(), state: State::New(options) }
    }

    /// The next record; `None` at the end, and after an error.
    pub async fn next(&mut self) -> Option<Result<ScanRecord, ScanError>> {
        let next = self.try_next().await;
        if !matches!(next, Ok(Some(_))) {
            self.state = State::Ended;
        }
        next.transpose()
    }

    /// All that is left.
    pub async fn collect(mut self) -> Result<Vec<ScanRecord>, ScanError> {
        let mut records = Vec::new();
        while let Some(record) = self.next().await {
            records.push(record?);
        }
        Ok(records)
    }

    async fn try_next(&mut self) -> Result<Option<ScanRecord>, ScanError> {
        if let State::New(options) = &self.state {
            let table = self.client.table(&self.table).await?;
            self.state = State::Running(ScanPlan::new(table.routes(), options)?);
        }
        let State::Running(plan) = &mut self.state else { return Ok(None) };
        if !plan.hungry().is_empty() {
            feed(&self.client, &self.table, plan).await?;
        }
        Ok(plan.pop())
    }
}

/// Fetches pages until no lane is hungry.
async fn feed(client: &Client, table: &Arc<str>, plan: &mut ScanPlan) -> Result<(), Failure> {
    while !plan.hungry().is_empty() {
        let lanes = plan.hungry().to_vec();
        let asked: Vec<OwnedAsk> = lanes.iter().map(|lane| OwnedAsk::of(plan.page_of(*lane))).collect();
        let ids: Vec<PartitionId> = asked.iter().map(|ask| ask.partition).collect();
        let by_id: Arc<std::collections::HashMap<PartitionId, OwnedAsk>> =
            Arc::new(asked.into_iter().map(|ask| (ask.partition, ask)).collect());
        let table = table.clone();
        let pages = client.fan_out(&ids, move |client, id| {
            let (table, by_id) = (table.clone(), by_id.clone());
            async move {
                let call = Call::on_partition(&table, id, Ask::Scan(by_id[&id].view()));
                answer::of_page(&client.pool.call(&call).await?)
            }
        });
        for (lane, page) in lanes.iter().zip(pages.await?) {
            plan.feed(*lane, page)?;
        }
    }
    Ok(())
}

/// A page's request that owns its bounds, for a task.
struct OwnedAsk {
    partition: PartitionId,
    start: Vec<u8>,
    end: Option<Vec<u8>>,
    shape: ScanView<'static>,
}

impl OwnedAsk {
    fn of((partition, view): (PartitionId, ScanView<'_>)) -> OwnedAsk {
        OwnedAsk {
            partition,
            start: view.range.start.to_vec(),
            end: view.range.end.map(<[u8]>::to_vec),
            shape: ScanView {
                range: RangeView::default(),
                reverse: view.reverse,
                keys_only: view.keys_only,
                ttls: view.ttls,
                limit: view.limit,
                byte_budget: view.byte_budget,
            },
        }
    }

    fn view(&self) -> ScanView<'_> {
        ScanView { range: RangeView { start: &self.start, end: self.end.as_deref() }, ..self.shape }
    }
}
