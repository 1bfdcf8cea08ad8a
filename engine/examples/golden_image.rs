//! Writes the golden drive image that `tests/golden.rs` opens: `cargo run -p lode-engine --example golden_image`.
//!
//! Only for a version of the format that no build was given out with: an image of one that was stays as it is.
#![allow(missing_docs)]

#[path = "../tests/golden/story.rs"]
mod story;
#[path = "../tests/support/mod.rs"]
mod support;

fn main() {
    let image = story::tell().drive.now;
    let file = story::pack(&image);
    assert!(story::unpack(&file) == image, "the file keeps the image");
    std::fs::write(story::PATH, &file).expect("the folder of the tests can be written to");
    println!(
        "{} holds {} bytes in {}; drive of {} keys",
        story::PATH,
        image.len(),
        file.len(),
        story::holds().len()
    );
}
