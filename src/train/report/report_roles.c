/* Which of the suite's five configurations a run is. */
#include "train/report/report.h"

#include <string.h>

static const char *const names[ND_REPORT_ROLES] = {"",          "baseline", "mtp_only",
                                                   "muon_8bit", "galore2",  "full"};

const char *nd_report_role_name(nd_report_role role)
{
    return names[role];
}

nd_report_role nd_report_role_of_config(const nd_config *config)
{
    enum { MTP = 1, COLLIDER = 2, QUANTISED = 4, GALORE = 8, CHECKPOINTING = 16 };
    const int systems = (config->training.use_mtp ? MTP : 0) |
                        (config->training.use_collider ? COLLIDER : 0) |
                        (nd_config_state_bits(config) < 32 ? QUANTISED : 0) |
                        (config->training.use_galore ? GALORE : 0) |
                        (config->hardware.gradient_checkpointing ? CHECKPOINTING : 0);
    switch (systems) {
    case 0:
        return ND_REPORT_BASELINE;
    case MTP:
        return ND_REPORT_MTP_ONLY;
    case MTP | COLLIDER | QUANTISED:
        return ND_REPORT_MUON_8BIT;
    case MTP | COLLIDER | GALORE:
        return ND_REPORT_GALORE2;
    case MTP | COLLIDER | QUANTISED | GALORE | CHECKPOINTING:
        return ND_REPORT_FULL;
    default:
        return ND_REPORT_OTHER;
    }
}

nd_report_role nd_report_role_of_name(const char *name)
{
    for (int role = ND_REPORT_BASELINE; role < ND_REPORT_ROLES; role++) {
        const size_t length = strlen(names[role]);
        if (strncmp(name, names[role], length) == 0 &&
            (name[length] == '\0' || strncmp(name + length, "_seed", 5) == 0))
            return (nd_report_role)role;
    }
    return ND_REPORT_OTHER;
}
