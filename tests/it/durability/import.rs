//! `kill -9` between every two steps of importing an image.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Result, ensure};
use ostler_tests::script::{END, script};
use ostler_tests::{Host, HostOptions};

/// In the order in which an import passes them; [`archive`] is packed, so that it passes all.
const POINTS: [&str; 8] = [
    "import.copied",
    "import.decompressed",
    "import.unpacked",
    "import.layer-placed",
    "import.blob-placed",
    "import.config-placed",
    "import.unnamed",
    "import.named",
];

fn images(data: &Path, arguments: &[&str], point: Option<&str>) -> Result<Output> {
    let mut command = Command::new(ostler_tests::host::binary()?);
    command.arg("images").args(arguments).arg("--data").arg(data);
    if let Some(point) = point {
        command.env(ostler_sandbox::fault::VARIABLE, point);
    }
    Ok(command.output()?)
}

fn archive(folder: &Path) -> Result<String> {
    let tree = folder.join("tree");
    fs::create_dir_all(tree.join("etc"))?;
    fs::write(tree.join("etc/hostname"), "box\n")?;
    std::os::unix::fs::symlink("etc/hostname", tree.join("name"))?;
    let tar = folder.join("tree.tar.gz");
    let status = Command::new("tar").arg("-C").arg(&tree).arg("-czf").arg(&tar).arg(".").status()?;
    ensure!(status.success(), "tar");
    Ok(tar.to_string_lossy().into_owned())
}

fn names(folder: &Path) -> Result<Vec<String>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

#[test]
fn an_import_that_is_killed_between_any_two_steps_gives_no_half_image_and_can_be_repeated() -> Result<()> {
    for point in POINTS {
        let folder = tempfile::tempdir()?;
        let (data, tar) = (folder.path().join("data"), archive(folder.path())?);
        let import = ["import", &tar, "--name", "small"];
        let killed = images(&data, &import, Some(point))?;
        assert_eq!(killed.status.signal(), Some(9), "{point}: {killed:?}");
        let listed = String::from_utf8(images(&data, &["list"], None)?.stdout)?;
        assert_eq!(!listed.is_empty(), point == "import.named", "{point}: {listed}");

        let again = images(&data, &import, None)?;
        assert!(again.status.success(), "{point}: {again:?}");
        let digest = String::from_utf8(again.stdout)?;
        let listed = String::from_utf8(images(&data, &["list"], None)?.stdout)?;
        let rows: Vec<Vec<&str>> = listed.lines().skip(1).map(|row| row.split_whitespace().collect()).collect();
        let [row] = &rows[..] else { panic!("{point}: {listed}") };
        assert_eq!((row.first(), row.last()), (Some(&"small"), Some(&digest.trim())), "{point}");
        let store = data.join("store");
        assert_eq!(names(&store.join("tmp"))?, Vec::<String>::new(), "{point}");
        assert_eq!(names(&store.join("blobs/sha256"))?.len(), 3, "{point}: layer, configuration, manifest");
        let layers = names(&store.join("layers"))?;
        let [layer] = &layers[..] else { panic!("{point}: {layers:?}") };
        let layer = store.join("layers").join(layer);
        assert_eq!(fs::read_to_string(layer.join("etc/hostname"))?, "box\n", "{point}");
        assert_eq!(fs::read_link(layer.join("name"))?, Path::new("etc/hostname"), "{point}");
    }
    Ok(())
}

#[tokio::test]
async fn what_a_killed_import_left_is_gone_after_the_next_start_of_the_host() -> Result<()> {
    let mut host = Host::start(HostOptions { script: script(&[END]), ..HostOptions::default() }).await?;
    host.stop()?;
    let folder = tempfile::tempdir()?;
    let tar = archive(folder.path())?;
    let killed = images(&host.data(), &["import", &tar, "--name", "small"], Some("import.unpacked"))?;
    assert_eq!(killed.status.signal(), Some(9), "{killed:?}");
    let temporary = host.data().join("store/tmp");
    assert_ne!(names(&temporary)?, Vec::<String>::new());
    host.launch().await?;
    assert_eq!(names(&temporary)?, Vec::<String>::new());
    Ok(())
}
