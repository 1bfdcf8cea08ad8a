//! What is drawn: keys, values, kinds of request and the times between them, all from a seed.

mod dice;
mod keys;
mod popularity;
mod values;

pub use dice::Dice;
pub use keys::{KeyOrder, Keys};
pub use popularity::{Distribution, Drawn, Popularity, Tenants};
pub use values::{ValueSizes, Values, belongs};
