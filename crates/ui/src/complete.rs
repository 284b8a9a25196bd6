//! Completion scripts: each asks the program itself (`PROGRAM __complete WORDS… CURRENT`), so that they never fall behind.
//!
//! The program answers a candidate a line, with a tab and a description where there is one; a last line `:files` asks for file names.

/// The script of a shell: `bash`, `zsh`, `fish` or `powershell`.
#[must_use]
pub fn script(shell: &str, program: &str) -> Option<String> {
    let text = match shell {
        "bash" => BASH,
        "zsh" => ZSH,
        "fish" => FISH,
        "powershell" => POWERSHELL,
        _ => return None,
    };
    Some(text.replace("PROGRAM", program))
}

const BASH: &str = r#"# bash completion for PROGRAM. Load it with: source <(PROGRAM completion bash)
_PROGRAM_complete() {
    local current="${COMP_WORDS[COMP_CWORD]}" line files=no
    # Words are split at colons and equal signs: put them together again.
    local -a words=()
    read -r -a words <<<"${COMP_LINE:0:COMP_POINT}"
    [[ "${COMP_LINE:0:COMP_POINT}" == *" " ]] && words+=("")
    local whole="${words[${#words[@]}-1]}"
    COMPREPLY=()
    while IFS= read -r line; do
        if [[ "$line" == ":files" ]]; then files=yes; continue; fi
        COMPREPLY+=("${line%%$'\t'*}")
    done < <(PROGRAM __complete "${words[@]:1}" 2>/dev/null)
    if [[ "$files" == yes ]]; then
        compopt -o filenames 2>/dev/null
        while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -f -- "$current")
        return
    fi
    # Readline replaces only what follows the last colon or equal sign.
    local cut="${whole%"$current"}" index
    for index in "${!COMPREPLY[@]}"; do COMPREPLY[index]="${COMPREPLY[index]#"$cut"}"; done
    [[ ${#COMPREPLY[@]} == 1 && ( "${COMPREPLY[0]}" == *= || "${COMPREPLY[0]}" == *: ) ]] && compopt -o nospace 2>/dev/null
}
complete -F _PROGRAM_complete PROGRAM
"#;

const ZSH: &str = r#"#compdef PROGRAM
# zsh completion for PROGRAM. Load it with: source <(PROGRAM completion zsh)
_PROGRAM() {
    local line files=no
    local -a candidates
    while IFS= read -r line; do
        if [[ "$line" == ":files" ]]; then files=yes; continue; fi
        # A colon separates the description: those of the candidate itself are escaped.
        local name="${line%%$'\t'*}" about=""
        [[ "$line" == *$'\t'* ]] && about="${line#*$'\t'}"
        candidates+=("${name//:/\\:}${about:+:$about}")
    done < <(PROGRAM __complete "${(@)words[2,CURRENT]}" 2>/dev/null)
    (( ${#candidates} )) && _describe 'PROGRAM' candidates
    [[ "$files" == yes ]] && _files
}
compdef _PROGRAM PROGRAM
"#;

const FISH: &str = r#"# fish completion for PROGRAM. Load it with: PROGRAM completion fish | source
function __PROGRAM_complete
    set -l words (commandline -opc) (commandline -ct)
    for line in (PROGRAM __complete $words[2..-1] 2>/dev/null)
        if test "$line" = ":files"
            __fish_complete_path (commandline -ct)
        else
            echo $line
        end
    end
end
complete -c PROGRAM -f -a '(__PROGRAM_complete)'
"#;

const POWERSHELL: &str = r#"# powershell completion for PROGRAM. Load it with: PROGRAM completion powershell | Out-String | Invoke-Expression
Register-ArgumentCompleter -Native -CommandName 'PROGRAM' -ScriptBlock {
    param($current, $line, $position)
    $words = @($line.CommandElements | Where-Object { $_.Extent.EndOffset -lt $position -or $current -eq '' } | Select-Object -Skip 1 | ForEach-Object { $_.ToString() })
    # An empty word is passed as one.
    if ($current -eq '') { $words += '""' } else { $words += $current }
    PROGRAM __complete @words 2>$null | Where-Object { $_ -ne ':files' } | ForEach-Object {
        $name, $about = $_ -split "`t", 2
        if (-not $about) { $about = $name }
        [System.Management.Automation.CompletionResult]::new($name, $name, 'ParameterValue', $about)
    }
}
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shell_has_its_script_and_no_other() {
        for shell in ["bash", "zsh", "fish", "powershell"] {
            assert!(script(shell, "sampan").unwrap().contains("sampan __complete"));
        }
        assert_eq!(script("tcsh", "sampan"), None);
    }
}
