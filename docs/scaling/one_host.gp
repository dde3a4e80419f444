# gnuplot one_host.gp draws one_host.svg again
set terminal svg size 860,520 dynamic background rgb 'white'
set termoption noenhanced
set output 'one_host.svg'
set datafile separator comma
set grid
set key outside right top
set logscale x 2
set xlabel 'ranks'
set xtics (1,2,4,8)
set xrange [0.9:9]
set ylabel 'efficiency (%)'
set yrange [0:*]
set datafile missing NaN
plot 'one_host.csv' every ::1 using (strcol(1) eq 'baseline' && strcol(2) eq 'strong' ? $3 : NaN):(100*$12) with linespoints pointtype 7 title 'baseline, strong', \
     'one_host.csv' every ::1 using (strcol(1) eq 'baseline' && strcol(2) eq 'weak' ? $3 : NaN):(100*$12) with linespoints pointtype 7 title 'baseline, weak', \
     'one_host.csv' every ::1 using (strcol(1) eq 'full' && strcol(2) eq 'strong' ? $3 : NaN):(100*$12) with linespoints pointtype 7 title 'full, strong', \
     'one_host.csv' every ::1 using (strcol(1) eq 'full' && strcol(2) eq 'weak' ? $3 : NaN):(100*$12) with linespoints pointtype 7 title 'full, weak'
