//! The checks: names, texts, and which of them a Dockerfile or a request turns off. What triggers them is found elsewhere.

use super::ast::{Lines, Warning};

/// A check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub name: &'static str,
    /// What it is about.
    pub description: &'static str,
    /// The last part of the address of its documentation; empty for none.
    url: &'static str,
    /// Whether it has to be asked for.
    pub experimental: bool,
}

impl Rule {
    const fn new(name: &'static str, url: &'static str, description: &'static str) -> Self {
        Self { name, description, url, experimental: false }
    }

    const fn experimental(name: &'static str, url: &'static str, description: &'static str) -> Self {
        Self { name, description, url, experimental: true }
    }

    /// A finding.
    #[must_use]
    pub fn warn(&self, lines: Lines, message: String) -> Warning {
        Warning { rule: self.name, description: self.description, url: self.url, message, lines: (lines.first > 0).then_some(lines) }
    }
}

/// All checks.
pub mod rules {
    use super::Rule;

    /// Lower-case names of stages.
    pub const STAGE_NAME_CASING: Rule =
        Rule::new("StageNameCasing", "https://docs.docker.com/go/dockerfile/rule/stage-name-casing/", "Stage names should be lowercase");
    /// `FROM … AS`.
    pub const FROM_AS_CASING: Rule = Rule::new(
        "FromAsCasing",
        "https://docs.docker.com/go/dockerfile/rule/from-as-casing/",
        "The 'as' keyword should match the case of the 'from' keyword",
    );
    /// Empty lines in an instruction.
    pub const NO_EMPTY_CONTINUATION: Rule = Rule::new(
        "NoEmptyContinuation",
        "https://docs.docker.com/go/dockerfile/rule/no-empty-continuation/",
        "Empty continuation lines will become errors in a future release",
    );
    /// All keywords alike.
    pub const CONSISTENT_INSTRUCTION_CASING: Rule = Rule::new(
        "ConsistentInstructionCasing",
        "https://docs.docker.com/go/dockerfile/rule/consistent-instruction-casing/",
        "All commands within the Dockerfile should use the same casing (either upper or lower)",
    );
    /// Two stages of one name.
    pub const DUPLICATE_STAGE_NAME: Rule =
        Rule::new("DuplicateStageName", "https://docs.docker.com/go/dockerfile/rule/duplicate-stage-name/", "Stage names should be unique");
    /// `scratch` and `context`.
    pub const RESERVED_STAGE_NAME: Rule = Rule::new(
        "ReservedStageName",
        "https://docs.docker.com/go/dockerfile/rule/reserved-stage-name/",
        "Reserved words should not be used as stage names",
    );
    /// CMD and ENTRYPOINT in shell form.
    pub const JSON_ARGS_RECOMMENDED: Rule = Rule::new(
        "JSONArgsRecommended",
        "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/",
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
    );
    /// MAINTAINER.
    pub const MAINTAINER_DEPRECATED: Rule = Rule::new(
        "MaintainerDeprecated",
        "https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/",
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
    );
    /// Variables of FROM.
    pub const UNDEFINED_ARG_IN_FROM: Rule = Rule::new(
        "UndefinedArgInFrom",
        "https://docs.docker.com/go/dockerfile/rule/undefined-arg-in-from/",
        "FROM command must use declared ARGs",
    );
    /// WORKDIR without a slash.
    pub const WORKDIR_RELATIVE_PATH: Rule = Rule::new(
        "WorkdirRelativePath",
        "https://docs.docker.com/go/dockerfile/rule/workdir-relative-path/",
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
    );
    /// Variables of other instructions.
    pub const UNDEFINED_VAR: Rule = Rule::new(
        "UndefinedVar",
        "https://docs.docker.com/go/dockerfile/rule/undefined-var/",
        "Variables should be defined before their use",
    );
    /// Two CMD, ENTRYPOINT, HEALTHCHECK.
    pub const MULTIPLE_INSTRUCTIONS_DISALLOWED: Rule = Rule::new(
        "MultipleInstructionsDisallowed",
        "https://docs.docker.com/go/dockerfile/rule/multiple-instructions-disallowed/",
        "Multiple instructions of the same type should not be used in the same stage",
    );
    /// `ENV a b`.
    pub const LEGACY_KEY_VALUE_FORMAT: Rule = Rule::new(
        "LegacyKeyValueFormat",
        "https://docs.docker.com/go/dockerfile/rule/legacy-key-value-format/",
        "Legacy key/value format with whitespace separator should not be used",
    );
    /// The base image's platform.
    pub const INVALID_BASE_IMAGE_PLATFORM: Rule =
        Rule::new("InvalidBaseImagePlatform", "", "Base image platform does not match expected target platform");
    /// `--platform=$TARGETPLATFORM`.
    pub const REDUNDANT_TARGET_PLATFORM: Rule = Rule::new(
        "RedundantTargetPlatform",
        "https://docs.docker.com/go/dockerfile/rule/redundant-target-platform/",
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
    );
    /// Names that sound secret.
    pub const SECRETS_USED_IN_ARG_OR_ENV: Rule = Rule::new(
        "SecretsUsedInArgOrEnv",
        "https://docs.docker.com/go/dockerfile/rule/secrets-used-in-arg-or-env/",
        "Sensitive data should not be used in the ARG or ENV commands",
    );
    /// Defaults of ARGs in FROM.
    pub const INVALID_DEFAULT_ARG_IN_FROM: Rule = Rule::new(
        "InvalidDefaultArgInFrom",
        "https://docs.docker.com/go/dockerfile/rule/invalid-default-arg-in-from/",
        "Default value for global ARG results in an empty or invalid base image name",
    );
    /// `--platform=linux/amd64`.
    pub const FROM_PLATFORM_FLAG_CONST_DISALLOWED: Rule = Rule::new(
        "FromPlatformFlagConstDisallowed",
        "https://docs.docker.com/go/dockerfile/rule/from-platform-flag-const-disallowed/",
        "FROM --platform flag should not use a constant value",
    );
    /// Ignored files.
    pub const COPY_IGNORED_FILE: Rule = Rule::experimental(
        "CopyIgnoredFile",
        "https://docs.docker.com/go/dockerfile/rule/copy-ignored-file/",
        "Attempting to Copy file that is excluded by .dockerignore",
    );
    /// Comments above ARG and FROM.
    pub const INVALID_DEFINITION_DESCRIPTION: Rule = Rule::experimental(
        "InvalidDefinitionDescription",
        "https://docs.docker.com/go/dockerfile/rule/invalid-definition-description/",
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
    );
    /// `EXPOSE 80/TCP`.
    pub const EXPOSE_PROTO_CASING: Rule = Rule::new(
        "ExposeProtoCasing",
        "https://docs.docker.com/go/dockerfile/rule/expose-proto-casing/",
        "Protocol in EXPOSE instruction should be lowercase",
    );
    /// `EXPOSE 1:2`.
    pub const EXPOSE_INVALID_FORMAT: Rule = Rule::new(
        "ExposeInvalidFormat",
        "https://docs.docker.com/go/dockerfile/rule/expose-invalid-format/",
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
    );
}

/// Which checks count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckConfig {
    skip: Vec<String>,
    skip_all: bool,
    experimental: Vec<String>,
    experimental_all: bool,
    /// Whether findings fail the build.
    pub error: bool,
}

impl CheckConfig {
    /// Reads `skip=A,B;error=true;experimental=all`.
    ///
    /// # Errors
    /// BuildKit's words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut config = Self::default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(config);
        }
        let names = |value: &str| value.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>();
        for part in text.splitn(3, ';') {
            let quoted = |text: &str| sampan_gotext::quote(text);
            let (key, value) = part.split_once('=').ok_or_else(|| format!("invalid check option {}", quoted(part)))?;
            match (key.trim(), value.trim()) {
                ("skip", "all") => config.skip_all = true,
                ("skip", value) => config.skip = names(value),
                ("experimental", "all") => config.experimental_all = true,
                ("experimental", value) => config.experimental = names(value),
                ("error", "1" | "t" | "T" | "true" | "TRUE" | "True") => config.error = true,
                ("error", "0" | "f" | "F" | "false" | "FALSE" | "False") => config.error = false,
                ("error", value) => {
                    let value = quoted(value);
                    return Err(format!(
                        "failed to parse check option {}: strconv.ParseBool: parsing {value}: invalid syntax",
                        quoted(part)
                    ));
                }
                (key, _) => return Err(format!("invalid check option {}", quoted(key))),
            }
        }
        Ok(config)
    }

    /// Whether a finding counts.
    #[must_use]
    pub fn wants(&self, warning: &Warning) -> bool {
        let listed = |names: &[String]| names.iter().any(|name| name == warning.rule);
        let experimental = [rules::COPY_IGNORED_FILE.name, rules::INVALID_DEFINITION_DESCRIPTION.name].contains(&warning.rule);
        if experimental { self.experimental_all || listed(&self.experimental) } else { !self.skip_all && !listed(&self.skip) }
    }
}
