//! Java programs: installed once with Maven, and checked file by file against a list of hashes.

use super::tools::{hex, run, tools_folder};
use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use tokio::process::Command;

const OLDEST_JAVA: u32 = 17;
const HOW_TO_INSTALL: &str = "Install it (Debian, Ubuntu: apt install openjdk-17-jre-headless maven; Fedora: dnf install java-17-openjdk-headless maven; \
     macOS: brew install openjdk@17 maven) and run this again";

/// A program, as described by its folder in `assets/`.
#[derive(Debug)]
pub(super) struct JavaProgram {
    /// Its name in messages.
    pub(super) name: &'static str,
    /// The name of its folder.
    pub(super) folder: &'static str,
    /// The project that Maven resolves.
    pub(super) pom: &'static str,
    /// The files that Maven must produce, one `<sha256>  <file>` per line.
    pub(super) sums: &'static str,
}

/// An installed program.
#[derive(Debug, Clone)]
pub(super) struct Installed {
    libraries: String,
}

impl JavaProgram {
    /// Installs it unless it is there. Waits while another process installs.
    ///
    /// # Errors
    /// If there is no Java to run it or no Maven to install it with (the message says what to do),
    /// or if the downloaded files are not the pinned ones.
    pub(super) async fn install(&self, workspace: &Path) -> Result<Installed> {
        let java = said(self.name, "Java 17 or newer", "java", "-version").await?;
        match java_version(&java) {
            Some(version) if version >= OLDEST_JAVA => {}
            _ => {
                let first = java.lines().next().unwrap_or_default();
                bail!(
                    "{} needs Java {OLDEST_JAVA} or newer, but `java -version` says `{first}`. {HOW_TO_INSTALL}",
                    self.name
                )
            }
        }
        let (tools, _lock) = tools_folder(workspace).await?;
        let digest = hex(&Sha256::digest(format!("{}{}", self.pom, self.sums)));
        let folder = tools.join(format!("{}-{}", self.folder, &digest[..16]));
        let (libraries, stamp) = (folder.join("lib"), folder.join("stamp"));
        // The stamp is written last. Without it, the download was interrupted.
        if !stamp.exists() {
            self.download(&folder, &libraries).await?;
            fs::write(&stamp, digest)?;
        }
        let libraries = libraries.to_str().context("the path of the workspace is not UTF-8")?.to_owned();
        Ok(Installed { libraries })
    }

    async fn download(&self, folder: &Path, libraries: &Path) -> Result<()> {
        said(self.name, "Maven for its installation", "mvn", "--version").await?;
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("removing the incomplete {}", folder.display()))?;
        }
        fs::create_dir_all(libraries)?;
        let pom = folder.join("pom.xml");
        fs::write(&pom, self.pom)?;
        // With the user's own Maven settings and cache, since they name the mirror and the proxy.
        let mut maven = Command::new("mvn");
        maven.args(["--quiet", "--batch-mode", "--strict-checksums", "dependency:copy-dependencies", "-f"]).arg(&pom);
        maven.arg(format!("-DoutputDirectory={}", libraries.display()));
        let installed = run(&mut maven, |_| {}).await;
        installed
            .with_context(|| format!("installing {} with Maven (only the first run needs the network)", self.name))?;
        verify(libraries, self.sums)
    }
}

impl Installed {
    /// The folder of its libraries.
    pub(super) fn libraries(&self) -> &str {
        &self.libraries
    }

    /// The command line that runs `main` with these arguments and a heap of `heap_mb`.
    pub(super) fn command(
        &self,
        heap_mb: u32,
        temporary: &Path,
        options: &[&str],
        main: &str,
        arguments: &[&str],
    ) -> Result<Vec<String>> {
        let temporary = temporary.to_str().context("the path of the workspace is not UTF-8")?;
        let heap = format!("-Xmx{heap_mb}m");
        let temporary = format!("-Djava.io.tmpdir={temporary}");
        let classes = format!("{}/*", self.libraries);
        // Without this, Java keeps performance counters in a file in the system's temporary folder.
        let ours = ["java", &heap, "-XX:+UseSerialGC", "-XX:-UsePerfData", &temporary];
        let program = ["-cp", &classes, main];
        let all = ours.iter().chain(options).chain(&program).chain(arguments);
        Ok(all.map(ToString::to_string).collect())
    }
}

/// What a program prints about its version, on either stream.
async fn said(name: &str, what: &str, program: &str, option: &str) -> Result<String> {
    let found = Command::new(program).arg(option).stdin(Stdio::null()).output().await;
    match found {
        Ok(found) if found.status.success() => {
            Ok(String::from_utf8_lossy(&[found.stderr, found.stdout].concat()).into_owned())
        }
        _ => bail!("{name} needs {what}: `{program} {option}` does not run. {HOW_TO_INSTALL}"),
    }
}

/// The release in the first line of `java -version`, such as `openjdk version "17.0.15" 2025-04-15`
/// or `java version "1.8.0_401"`.
fn java_version(said: &str) -> Option<u32> {
    let (_, quoted) = said.split_once("version \"")?;
    let digits = quoted.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// Checks that a folder holds exactly the listed files (`<sha256>  <file>` per line) with exactly
/// these bytes.
fn verify(folder: &Path, sums: &str) -> Result<()> {
    let expected: BTreeMap<String, String> =
        sums.lines().filter_map(|line| line.split_once("  ")).map(|(sum, name)| (name.into(), sum.into())).collect();
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        found.insert(entry.file_name().to_string_lossy().into_owned(), hex(&Sha256::digest(fs::read(entry.path())?)));
    }
    let differs = |name: &&String| expected.get(*name) != found.get(*name);
    let different: Vec<&String> = expected.keys().chain(found.keys()).filter(differs).collect();
    ensure!(different.is_empty(), "these files differ from sha256sums.txt: {different:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{dynamodb, kafka_cluster};
    use super::*;

    #[test]
    fn changed_missing_and_additional_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let sum = hex(&Sha256::digest("good"));
        let check = |sums: &str| verify(folder.path(), sums).map_err(|error| error.to_string());
        fs::write(folder.path().join("a.jar"), "good").unwrap();
        assert_eq!(check(&format!("{sum}  a.jar\n")), Ok(()));
        assert!(check(&format!("{sum}  a.jar\n{sum}  b.jar\n")).unwrap_err().contains("b.jar"));
        assert!(check("").unwrap_err().contains("a.jar"));
        fs::write(folder.path().join("a.jar"), "bad").unwrap();
        assert!(check(&format!("{sum}  a.jar\n")).unwrap_err().contains("a.jar"));
    }

    #[test]
    fn projects_pin_versions_and_name_no_host() {
        for JavaProgram { name, pom, sums, .. } in [dynamodb::PROGRAM, kafka_cluster::PROGRAM] {
            assert!(sums.lines().count() > 40, "{name}");
            assert!(sums.lines().all(|line| line.len() > 66 && &line[64..66] == "  "), "{name}");
            assert!(!pom.contains("<repository>") && !pom.contains("https://"), "{pom}");
            let versions: Vec<&str> = pom.lines().filter(|line| line.contains("<version>")).collect();
            assert!(versions.iter().all(|line| !line.contains(['[', '(', ','])), "a range: {versions:?}");
        }
    }

    #[test]
    fn java_version_is_parsed() {
        assert_eq!(java_version("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime"), Some(17));
        assert_eq!(java_version("openjdk version \"25\" 2025-09-16"), Some(25));
        assert_eq!(java_version("java version \"1.8.0_401\""), Some(1));
        assert_eq!(java_version("no such thing"), None);
    }

    #[tokio::test]
    async fn missing_program_is_named_with_the_fix() {
        let missing = said("Apache Kafka", "Java 17 or newer", "no-such-java", "-version").await;
        let error = missing.unwrap_err().to_string();
        assert!(error.contains("`no-such-java -version` does not run") && error.contains("apt install"), "{error}");
    }
}
