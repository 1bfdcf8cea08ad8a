//! The lookups of all gets of an inbox, done side by side before they are served one by one.

use crate::index::{LOOKUPS_AT_ONCE, Lookup, look_up};
use crate::io::Io;
use crate::location::Location;
use crate::partition::{Partition, Store};
use crate::request::{Request, RequestBody};
use crate::shard::Shard;

/// What is known of a get's key before it is served.
#[derive(Debug, Clone, Copy)]
pub enum Located {
    /// Nothing yet.
    Unknown,
    /// Where its record lies, if it has one.
    At(Option<Location>),
}

impl Shard {
    /// Serves requests in their order.
    pub(crate) fn handle_all(&mut self, requests: &mut Vec<Request<'_>>, io: &mut Io<'_>) {
        for group in requests.chunks(LOOKUPS_AT_ONCE) {
            let located = self.locate_gets(group);
            let changes = self.catalog.arena.changes();
            for (request, located) in group.iter().zip(located) {
                // Nothing that serves a request changes an index: writes do when they are durable.
                let unchanged = self.catalog.arena.changes() == changes;
                self.handle(request, if unchanged { located } else { Located::Unknown }, io);
            }
        }
        requests.clear();
    }

    fn locate_gets(&self, group: &[Request<'_>]) -> [Located; LOOKUPS_AT_ONCE] {
        let mut located = [Located::Unknown; LOOKUPS_AT_ONCE];
        let mut lookups = [Lookup::NONE; LOOKUPS_AT_ONCE];
        let mut places = [0; LOOKUPS_AT_ONCE];
        let mut count = 0;
        let partition_of = |request: &Request<'_>| match &request.body {
            RequestBody::Get { target, .. } => self.catalog.get(target.partition),
            _ => None,
        };
        group.iter().filter_map(partition_of).for_each(Partition::prefetch);
        for (place, request) in group.iter().enumerate() {
            let RequestBody::Get { target, key } = &request.body else { continue };
            let Some(partition) = self.catalog.get(target.partition) else { continue };
            if let Store::Durable(index) = &partition.store {
                (lookups[count], places[count]) = (index.lookup(key), place);
                count += 1;
            }
        }
        // One alone has nobody to wait with.
        if count > 1 {
            look_up(&self.catalog.arena, &mut lookups[..count]);
            for (lookup, place) in lookups.iter().zip(places).take(count) {
                // What may be another key's is looked at anew.
                located[place] =
                    if lookup.is_certain() { Located::At(lookup.found()) } else { Located::Unknown };
            }
            self.prefetch_cached(&located);
        }
        located
    }
}
