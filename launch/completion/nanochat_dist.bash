# Completion of nanochat_dist for bash. What it offers comes from the program itself (--help and
# train --list-keys), so that it cannot fall behind. Installed by `cmake --install`; in a checkout:
#   source launch/completion/nanochat_dist.bash

# Names of the subcommands, or of the flags of one.
_nanochat_dist_subcommands() { "$1" --help 2>/dev/null | awk '/^subcommands:/ { on = 1; next } on && !NF { exit } on { print $1 }'; }
_nanochat_dist_flags() { "$@" --help 2>/dev/null | awk '$1 ~ /^--/ { print $1 } END { print "--help" }' | sort -u; }
# What may follow a flag, as its help writes it: FILE, DIR, N, auto|none|DIR.
_nanochat_dist_value_of() {
    local flag=$1
    shift
    "$@" --help 2>/dev/null | awk -v flag="$flag" '$1 == flag { print $2; exit }'
}
# section.key of every key.
_nanochat_dist_keys() {
    "$1" train --list-keys 2>/dev/null |
        awk '/^\[/ { section = substr($1, 2, length($1) - 2); next } NF { print section "." $1 }'
}
# Configs beside the program, as it looks for them: installed, or in the checkout it was built in.
_nanochat_dist_configs() {
    local bin place
    bin=$(dirname "$(readlink -f "$(type -P "$1")")")
    for place in "$bin/../share/nanochat_dist/configs" "$bin/../../configs"; do
        # claims.ini is no configuration.
        [ ! -d "$place" ] || (cd "$place" && grep -rl --include='*.ini' '^\[model\]' . | sed 's|^\./||')
    done
}

# --config=NAME is three words to bash, of which the last may be missing, and one to zsh.
_nanochat_dist() {
    local program=${COMP_WORDS[0]} current=$2 previous=$3 begin=''
    COMPREPLY=()
    if [[ $current == --*=* ]]; then
        begin=${current%%=*}=
        previous=${begin%=} current=${current#*=}
    elif [ "$previous" = = ]; then
        previous=${COMP_WORDS[COMP_CWORD - 2]}
    elif [ "${COMP_WORDS[COMP_CWORD]}" != = ]; then
        _nanochat_dist_offer
        return
    fi
    if [[ $previous == --* ]]; then
        _nanochat_dist_offer
        COMPREPLY=("${COMPREPLY[@]/#/$begin}")
    else # the value of a key: --set model.hidden_dim=384
        compopt -o default
    fi
}

_nanochat_dist_offer() {
    local command=(train) value choice
    if [ "$COMP_CWORD" -gt 1 ] && [[ ${COMP_WORDS[1]} != -* ]]; then
        command=("${COMP_WORDS[1]}")
        if [ "${command[0]}" = tokenizer ]; then
            if [ "$COMP_CWORD" -eq 2 ]; then
                mapfile -t COMPREPLY < <(compgen -W 'train encode decode --help --version' -- "$current")
                return
            fi
            command+=("${COMP_WORDS[2]}")
        fi
    fi
    if [ "$COMP_CWORD" -eq 1 ] && [[ ${COMP_WORDS[1]} != -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(_nanochat_dist_subcommands "$program")" -- "$current")
        return
    fi

    if [[ $previous == --* ]]; then
        value=$(_nanochat_dist_value_of "$previous" "$program" "${command[@]}")
        case $previous:$value in
        --config:*)
            compopt -o filenames
            mapfile -t COMPREPLY < <(
                compgen -W "$(_nanochat_dist_configs "$program")" -- "$current"
                compgen -f -X '!*.ini' -- "$current"
                compgen -d -- "$current"
            )
            return
            ;;
        --set:*)
            compopt -o nospace
            mapfile -t COMPREPLY < <(
                compgen -S = -W "$(_nanochat_dist_keys "$program")" -- "$current"
            )
            return
            ;;
        *:*'|'*)
            for choice in ${value//|/ }; do
                case $choice in
                DIR) compopt -o filenames && mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -d -- "$current") ;;
                *) mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -W "$choice" -- "$current") ;;
                esac
            done
            return
            ;;
        *:DIR)
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -d -- "$current")
            return
            ;;
        *:FILE* | *:PATH)
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -f -- "$current")
            return
            ;;
        *:[A-Z]*) return ;; # a number or a text: nothing to offer
        esac
    fi
    if [[ $current == -* ]]; then
        mapfile -t COMPREPLY < <(
            compgen -W "$(_nanochat_dist_flags "$program" "${command[@]}")" -- "$current"
        )
        return
    fi
    compopt -o filenames
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
}
complete -F _nanochat_dist nanochat_dist
