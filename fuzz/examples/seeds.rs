//! Writes the inputs from which the fuzzer begins: `cargo run -p shadowmesh-fuzz --example seeds -- FOLDER` makes FOLDER/TARGET/seed-NN.
use shadowmesh_fuzz::targets::seeds;
use std::{env, fs, io, path::PathBuf};

fn main() -> io::Result<()> {
    let folder = env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| io::Error::other("name the folder in which a folder for each target is made"))?;
    for (target, inputs) in seeds::all() {
        let inside = folder.join(target);
        fs::create_dir_all(&inside)?;
        for (number, input) in inputs.iter().enumerate() {
            fs::write(inside.join(format!("seed-{number:02}")), input)?;
        }
    }
    Ok(())
}
